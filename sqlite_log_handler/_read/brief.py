"""
The facts of a log that you need first: its size, errors, new patterns, loud loggers, and gaps.

Theory of operation
===================

One pass over at most the newest million rows counts the patterns; all else comes from tables of few lines. So a brief
takes no longer for a larger log. If a hostile or very odd log makes a part impossible, `left_out` has the reason, and
the brief has the other parts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from logging import ERROR, WARNING
from typing import Final, TypeVar

from sqlite_log_handler._logfile.columns import text
from sqlite_log_handler._logfile.errors import LimitError
from sqlite_log_handler._logfile.times import from_microseconds
from sqlite_log_handler._read.filters import LOWEST, Filters, level_names, runs, where
from sqlite_log_handler._read.patterns import Moment, Pattern, begin_of, compared
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.statistics import Gap, gaps, sizes
from sqlite_log_handler._read.totals import Totals, totals

_T = TypeVar("_T")

MOST_ROWS: Final = 1_000_000
# Patterns of errors for which the brief has the newest error, and the characters of the end of its traceback.
_ERRORS: Final = 20
# Times as often as before: a warning is worth a line then.
_OFTEN: Final = 3
_TRACEBACK_LENGTH: Final = 1_500


@dataclass(frozen=True, slots=True)
class Brief:
    """
    The facts of a log since `since_us`, in microseconds since 1970; None stands for the whole log.

    `runs` counts the starts of the program; with `is_last_run`, the facts begin with the last one, and `begins` has the
    logger and the message of its first record, unless that lies in an archive before the newest rows. `patterns` and
    `records` cover the rows after the id `after_id`. `new` has the `last_id` of each pattern that no older one of these
    has; None if none is older, or if the patterns are left out. `grown` has, by `last_id`, how many times as often as
    before each other pattern was logged. `errors` has, by the `last_error_id` of a pattern, a message and the end
    of its traceback.
    """

    since_us: int | None
    is_last_run: bool
    begins: tuple[str, str] | None
    runs: int
    after_id: int
    records: int
    first_us: int | None
    last_us: int | None
    patterns: tuple[Pattern, ...]
    new: frozenset[int] | None
    grown: dict[int, float]
    errors: dict[int, tuple[str, str]]
    gaps: tuple[Gap, ...]
    level_names: dict[int, str]
    totals: Totals
    left_out: tuple[str, ...]

    def changes(self) -> list[Pattern]:
        """Return the patterns that are new, and the warnings that are more frequent; what warns comes first."""
        new = self.new or frozenset()
        changed = [
            pattern
            for pattern in self.patterns
            if pattern.last_id in new or (_warns(pattern) and self.grown.get(pattern.last_id, 0) >= _OFTEN)
        ]
        return sorted(changed, key=_warns, reverse=True)


def _warns(pattern: Pattern) -> bool:
    return max(pattern.levels) >= WARNING


def brief(scan: Scan, since: Moment | None, now_us: int) -> Brief:
    """Read the brief; see `LogReader.brief`."""
    left_out: list[str] = []
    starts = _attempt(left_out, "runs", lambda: len(runs(scan.all)), 0)
    is_last_run = since is None and starts > 1
    since_us = None if since is None and not is_last_run else begin_of(scan, 0 if since is None else since)
    last_id = scan.last_id()
    after_id = last_id - MOST_ROWS if last_id > MOST_ROWS else LOWEST
    chosen = where(scan.all, {"after_id": after_id})
    begin_us = LOWEST if since_us is None else since_us
    nothing: tuple[list[Pattern], set[int], dict[int, float] | None] = [], set(), None
    found, new, grown = _attempt(left_out, "patterns", lambda: compared(scan, chosen, begin_us, after_id), nothing)
    begins = None
    # Of an archive, only the newest rows are there, and an older one tells that the first of the run is among them.
    if is_last_run and (scan.whole_log is None or after_id == LOWEST or grown is not None):
        begins = _attempt(left_out, "first record", lambda: _first(scan, begin_us), None)
    no_totals = Totals({}, {}, {}, None, *sizes(scan.path), ())
    bounds: Filters = {"since": from_microseconds(begin_us)}  # None, and so all gaps, outside of the calendar
    return Brief(
        since_us=since_us,
        is_last_run=is_last_run,
        begins=begins,
        runs=starts,
        after_id=max(after_id, 0),
        records=sum(pattern.records for pattern in found),
        first_us=min((pattern.first_us for pattern in found), default=None),
        last_us=max((pattern.last_us for pattern in found), default=None),
        patterns=tuple(found),
        new=None if grown is None else frozenset(new),
        grown=grown or {},
        errors=_attempt(left_out, "errors", lambda: _errors(scan, found), {}),
        gaps=tuple(_attempt(left_out, "gaps", lambda: gaps(scan, bounds), [])),
        level_names=_attempt(left_out, "names of levels", lambda: level_names(scan.all), {}),
        totals=_attempt(left_out, "totals", lambda: totals(scan, now_us), no_totals),
        left_out=tuple(left_out),
    )


def _attempt(left_out: list[str], what: str, read: Callable[[], _T], otherwise: _T) -> _T:
    """Read one part; if the log has too much for that, note that the brief leaves it out."""
    try:
        return read()
    except LimitError as error:
        left_out.append(f"{what}: {error}")
        return otherwise


def _first(scan: Scan, begin_us: int) -> tuple[str, str] | None:
    """Return the logger and the message of the first record from a time on: one look into an index."""
    columns = f"{text('logger')}, {text('substr(message, 1, 300)')}"
    ask = f"SELECT {columns} FROM records LEFT JOIN sources ON sources.id = source_id"  # noqa: S608 - our own names
    found = scan.all(f"{ask} WHERE created_us >= ? ORDER BY created_us, records.id LIMIT 1", (begin_us,))
    return found[0] if found else None


def _errors(scan: Scan, found: list[Pattern]) -> dict[int, tuple[str, str]]:
    """Return the newest error of the patterns with most errors."""
    failed = sorted(found, key=lambda pattern: -sum(n for level, n in pattern.levels.items() if level >= ERROR))
    ids = [pattern.last_error_id for pattern in failed if pattern.last_error_id is not None][:_ERRORS]
    columns = text("substr(message, 1, 300)"), text(f"substr(exc_text, -{_TRACEBACK_LENGTH})")
    ask = f"SELECT id, {', '.join(columns)} FROM records WHERE id IN ({','.join(map(str, ids))})"  # noqa: S608 - numbers
    return {id_: (message, traceback) for id_, message, traceback in scan.all(ask)}
