"""
Logs as OpenMetrics text (https://prometheus.io/docs/specs/om/open_metrics_spec/), for Prometheus and others.

The numbers are of all processes that write to a log, which no library inside one of them could count.

The textfile collector of node_exporter reads only the older text format of Prometheus. It differs in little: a counter
has its suffix in the lines above it too, and no line stands at the end.
"""

from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Final

from sqlite_log_handler._logfile.errors import LimitError, LogFileError, UnreadableFileError
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import CAUSES
from sqlite_log_handler._read.reader import read_file
from sqlite_log_handler._read.totals import Totals

CONTENT_TYPE: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"

_PREFIX: Final = "sqlite_log_"
# Most letters of the samples of one log, and of all. An ordinary log has some 6 kB.
_MOST: Final = 1024 * 1024
_MOST_OF_ALL: Final = 8 * 1024 * 1024
# Levels of which each cause of drops has a sample of 0 before the first drop: Prometheus does not see the rise of a
# series that begins with it. These, then those of the log, up to a number of them.
_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_MOST_LEVELS: Final = 16
# Their kind and help, by name.
_FAMILIES: Final = {
    "up": ("gauge", "Whether the log can be read."),
    "records": ("counter", "Records written since the file was made."),
    "record_bytes": ("counter", "Bytes of their text."),
    "drops": ("counter", "Records dropped since the file was made."),
    "file_bytes": ("gauge", "Size of the file."),
    "wal_bytes": ("gauge", "Size of the WAL beside the file."),
    "last_record_timestamp_seconds": ("gauge", "When the last record was logged, in seconds since 1970."),
    "cursor_lag_records": ("gauge", "Records that a cursor has not passed yet."),
    "cursor_lag_seconds": ("gauge", "How long the first of these records has waited."),
}


def openmetrics(paths: Mapping[str, str], *, older: bool = False) -> tuple[str, list[str]]:
    """
    Return the text for the logs at `paths`, and an error for each log that we cannot read.

    The text has only `sqlite_log_up 0` for such a log. The keys of `paths` are the names of the logs in the text.
    With `older`, the text has the older format.
    """
    families: dict[str, dict[str, float]] = {name: {} for name in _FAMILIES}
    errors: list[str] = []
    left = _MOST_OF_ALL
    for name, path in paths.items():
        try:
            with read_file(path) as reader:
                if reader.notice:
                    raise UnreadableFileError(reader.notice)
                samples = _samples(path, name, reader.totals(), min(left, _MOST))
        except (LogFileError, OSError) as error:
            errors.append(str(error))
            samples = [("up", _labels(log=name), 0)]
        for family, labels, value in samples:
            left -= len(labels)
            # Two names may become one when we make them printable, and a sample may occur only once.
            families[family][labels] = families[family].get(labels, 0) + value
    lines: list[str] = []
    for name, (kind, text) in _FAMILIES.items():
        full_name = f"{_PREFIX}{name}_total" if kind == "counter" else f"{_PREFIX}{name}"
        described = full_name if older else f"{_PREFIX}{name}"
        lines += [f"# HELP {described} {text}", f"# TYPE {described} {kind}"]
        lines += (f"{full_name}{{{labels}}} {value!r}" for labels, value in families[name].items())
    return "".join(f"{line}\n" for line in (lines if older else [*lines, "# EOF"])), errors


def _samples(path: str, name: str, totals: Totals, left: int) -> list[tuple[str, str, float]]:
    """Return the samples of one log, each with its family and its labels; refuse more than `left` letters."""
    found: list[tuple[str, str, float]] = []
    for family, value, labels in _values(totals):
        found.append((family, _labels(log=name, **labels), value))
        left -= len(found[-1][1])
        if left < 0:
            raise LimitError(
                f"{path!r}: its metrics take more than {_MOST >> 20} MiB, or those of all logs more than "
                f"{_MOST_OF_ALL >> 20} MiB: name fewer logs, or look for long names of cursors, levels and causes"
            )
    return found


def _values(totals: Totals) -> Iterator[tuple[str, float, dict[str, str]]]:
    """Yield family, value and labels of each sample, as they are asked for: a log may have 100,000 levels."""
    yield "up", 1, {}
    for level, records in totals.records.items():
        yield "records", records, {"level": level}
        yield "record_bytes", totals.bytes[level], {"level": level}
    levels = islice(dict.fromkeys((*_LEVELS, *totals.records)), _MOST_LEVELS)
    for (cause, level), drops in {**dict.fromkeys(product(CAUSES, levels), 0), **totals.drops}.items():
        yield "drops", drops, {"cause": cause, "level": level}
    yield "file_bytes", totals.file_bytes, {}
    yield "wal_bytes", totals.wal_bytes, {}
    if totals.last_us is not None:
        yield "last_record_timestamp_seconds", totals.last_us / 1e6, {}
    for lag in totals.lags:
        yield "cursor_lag_records", lag.rows, {"cursor": lag.name}
        yield "cursor_lag_seconds", lag.seconds, {"cursor": lag.name}


def _labels(**labels: str) -> str:
    return ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())


def _escaped(text: str) -> str:
    return printable(text).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
