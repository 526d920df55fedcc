"""
Logs as OpenMetrics text (https://prometheus.io/docs/specs/om/open_metrics_spec/), for Prometheus and others.

The numbers are of all processes that write to a log, which no library inside one of them could count.

The textfile collector of node_exporter reads only the older text format of Prometheus. It differs in little: a counter
has its suffix in the lines above it too, and no line stands at the end.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from sqlite_log_handler._logfile.errors import LogFileError
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._read.reader import read_file
from sqlite_log_handler._read.totals import Totals

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_PREFIX: Final = "sqlite_log_"
# Labels and a value.
_Sample: TypeAlias = tuple[dict[str, str], float]


def openmetrics(paths: Mapping[str, str], *, older: bool = False) -> tuple[str, list[str]]:
    """
    Return the text for the logs at `paths`, and an error for each log that we cannot read.

    The text has only `sqlite_log_up 0` for such a log. The keys of `paths` are the names of the logs in the text.
    With `older`, the text has the older format.
    """
    found: dict[str, Totals | None] = {}
    errors: list[str] = []
    for name, path in paths.items():
        try:
            with read_file(path) as reader:
                found[name] = reader.totals()
        except (LogFileError, OSError) as error:
            found[name] = None
            errors.append(str(error))
    return "".join(f"{line}\n" for line in _lines(found, older=older)), errors


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


def _lines(found: Mapping[str, Totals | None], *, older: bool) -> Iterator[str]:
    up: list[_Sample] = [({"log": name}, int(totals is not None)) for name, totals in found.items()]
    yield from _family("up", "gauge", "Whether the log can be read.", up)
    readable = {log: [*_samples_of(totals)] for log, totals in found.items() if totals is not None}
    for number, (name, kind, text) in enumerate(_FAMILIES):
        samples = (({"log": log, **labels}, n) for log, all_ in readable.items() for labels, n in all_[number])
        yield from _family(f"{name}_total" if older and kind == "counter" else name, kind, text, samples)
    if not older:
        yield "# EOF"


def _family(name: str, kind: str, text: str, samples: Iterable[_Sample]) -> Iterator[str]:
    yield f"# HELP {_PREFIX}{name} {text}"
    yield f"# TYPE {_PREFIX}{name} {kind}"
    suffix = "_total" if kind == "counter" and not name.endswith("_total") else ""
    # Two names may become one when we make them printable, and a sample may occur only once.
    summed: dict[str, float] = {}
    for labels, value in samples:
        key = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        summed[key] = summed.get(key, 0) + value
    for key, value in summed.items():
        yield f"{_PREFIX}{name}{suffix}{{{key}}} {value!r}"


def _escaped(text: str) -> str:
    return printable(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
