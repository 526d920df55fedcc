"""
Logs as OpenMetrics text (https://prometheus.io/docs/specs/om/open_metrics_spec/), for Prometheus and others.

The numbers are of all processes that write to a log, which no library inside one of them could count.

The textfile collector of node_exporter reads only the older text format of Prometheus. It differs in little: a counter
has its suffix in the lines above it too, and no line stands at the end.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from sqlite_log_handler._logfile.errors import LimitError, LogFileError, UnreadableFileError
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._read.reader import read_file
from sqlite_log_handler._read.totals import Totals

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_PREFIX: Final = "sqlite_log_"
# Labels and a value.
_Sample: TypeAlias = tuple[dict[str, str], float]
# The samples of a family, by their labels as text.
_Family: TypeAlias = dict[str, float]
# Most letters of the samples of one log, and of all. An ordinary log has some 3 kB.
_MOST: Final = 1024 * 1024
_MOST_OF_ALL: Final = 8 * 1024 * 1024


def openmetrics(paths: Mapping[str, str], *, older: bool = False) -> tuple[str, list[str]]:
    """
    Return the text for the logs at `paths`, and an error for each log that we cannot read.

    The text has only `sqlite_log_up 0` for such a log. The keys of `paths` are the names of the logs in the text.
    With `older`, the text has the older format.
    """
    up: _Family = {}
    families: list[_Family] = [{} for _ in _FAMILIES]
    errors: list[str] = []
    left = _MOST_OF_ALL
    for name, path in paths.items():
        try:
            with read_file(path) as reader:
                if reader.notice:
                    raise UnreadableFileError(reader.notice)
                found, length = _found(path, name, reader.totals(), left)
        except (LogFileError, OSError) as error:
            _add(up, _labels(log=name), 0)
            errors.append(str(error))
            continue
        left -= length
        _add(up, _labels(log=name), 1)
        for family, samples in zip(families, found, strict=True):
            for labels, value in samples:
                _add(family, labels, value)
    lines = [*_lines("up", "gauge", "Whether the log can be read.", up)]
    for (name, kind, text), family in zip(_FAMILIES, families, strict=True):
        lines += _lines(f"{name}_total" if older and kind == "counter" else name, kind, text, family)
    return "".join(f"{line}\n" for line in (lines if older else [*lines, "# EOF"])), errors


# Name, kind and help.
_FAMILIES: Final = (
    ("records", "counter", "Records written since the file was made."),
    ("record_bytes", "counter", "Bytes of their text."),
    ("drops", "counter", "Records dropped since the file was made."),
    ("file_bytes", "gauge", "Size of the file."),
    ("wal_bytes", "gauge", "Size of the WAL beside the file."),
    ("last_record_timestamp_seconds", "gauge", "When the last record was logged, in seconds since 1970."),
    ("cursor_lag_records", "gauge", "Records that a cursor has not passed yet."),
    ("cursor_lag_seconds", "gauge", "How long the first of these records has waited."),
)


def _samples_of(totals: Totals) -> Iterator[Iterable[_Sample]]:
    """Yield the samples of one log, in the order of the families."""
    # Some of them as they are asked for, because a log may have 100,000 levels.
    yield (({"level": level}, count) for level, count in totals.records.items())
    yield (({"level": level}, size) for level, size in totals.bytes.items())
    yield (({"cause": cause, "level": level}, count) for (cause, level), count in totals.drops.items())
    yield [({}, totals.file_bytes)]
    yield [({}, totals.wal_bytes)]
    yield [] if totals.last_us is None else [({}, totals.last_us / 1e6)]
    yield [({"cursor": lag.name}, lag.rows) for lag in totals.lags]
    yield [({"cursor": lag.name}, lag.seconds) for lag in totals.lags]


def _found(path: str, name: str, totals: Totals, left: int) -> tuple[list[list[tuple[str, float]]], int]:
    """Return the samples of one log by family, and how long they are; refuse more than `left` letters."""
    found: list[list[tuple[str, float]]] = []
    length = 0
    for samples in _samples_of(totals):
        found.append([])
        for labels, value in samples:
            found[-1].append((_labels(log=name, **labels), value))
            length += len(found[-1][-1][0])
            if length > min(left, _MOST):
                raise LimitError(
                    f"{path!r}: its metrics take more than {_MOST >> 20} MiB, or those of all logs more than "
                    f"{_MOST_OF_ALL >> 20} MiB: name fewer logs, or look for long names of cursors, levels and causes"
                )
    return found, length


def _labels(**labels: str) -> str:
    return ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())


def _add(family: _Family, labels: str, value: float) -> None:
    # Two names may become one when we make them printable, and a sample may occur only once.
    family[labels] = family.get(labels, 0) + value


def _lines(name: str, kind: str, text: str, family: _Family) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {text}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
    suffix = "_total" if kind == "counter" and not name.endswith("_total") else ""
    for labels, value in family.items():
        yield f"{_PREFIX}{name}{suffix}{{{labels}}} {value!r}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
