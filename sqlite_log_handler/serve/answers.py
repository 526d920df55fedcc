"""
Answers to the questions of the page: plain data, which `app` sends as JSON.

Nothing here knows HTTP. Each function takes an open reader and the query of a request, and reads a bounded number of
rows, of which a list shows the beginning of the message only.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import islice
from math import isfinite
from typing import Any, Final, TypeAlias

from sqlite_log_handler._logfile.schema import level_name
from sqlite_log_handler._logfile.times import now_us
from sqlite_log_handler._read.filters import HIGHEST, FilterError, Filters, up_to
from sqlite_log_handler._read.patterns import Pattern
from sqlite_log_handler._read.reader import LogReader, log_id, shared_source
from sqlite_log_handler._read.rows import Row
from sqlite_log_handler._read.statistics import dropped_over_time
from sqlite_log_handler.serve.query import Query

Answer: TypeAlias = dict[str, Any]

# A list shows one line a row; a message of 64 KiB would cost the browser more than the line.
_SHOWN_CHARACTERS: Final = 500
_MOST_ROWS: Final = 2_000
# Characters of the texts of a page: 500 for each row, and as much for its names.
_MOST_CHARACTERS: Final = 2_000_000
_MOST_BUCKETS: Final = 500
_MOST_GROUPS: Final = 1_000
_MOST_CHANGES: Final = 50
# Rows whose attributes are read for their names: this takes 10 ms.
_SAMPLED: Final = 1_000
_MOST_KEYS: Final = 100
_MOST_COUNTED: Final = 10_000
_LONGEST_KEY: Final = 200
_DEEPEST: Final = 110
# Characters of a pattern, which becomes a part of an address.
_LONGEST_PATTERN: Final = 2_000
# Runs that we try, one after the other, to tell of which run a row is.
_RUNS: Final = 20
# Whole numbers up to which JavaScript is exact.
_EXACT: Final = 2**53


class UnknownRowError(LookupError):
    """The log has no row with this id: it was pruned, or was never there."""


def rows(log: LogReader, query: Query) -> Answer:
    """
    Answer a page of rows, oldest first, with the gaps between them.

    `lines` bounds the page. `order` says from which end of the matching rows it comes: `newest` (the default), or
    `oldest`, which reads on after `after-id`. `lines=0` counts the matching rows instead. `last_id` is the highest id
    before the rows were read, so a poll that goes on after it misses nothing. Ids are those of one `log_id`.
    """
    filters = query.filters()
    lines = query.number("lines", least=0, most=_MOST_ROWS)
    order = query.text("order") or "newest"
    query.finish()
    if order not in {"newest", "oldest"}:
        raise FilterError(f"order={order!r} is unknown: choose newest or oldest")
    last_id = log.last_id()
    within = up_to(filters, last_id)
    place = {"last_id": last_id, "log_id": log_id(log)}
    if lines == 0:
        return {"count": log.count(**within), **place}
    lines = lines or 300
    newest = lines if order == "newest" else None
    # A page of the largest rows, or of names that no handler writes, would not fit into memory.
    found, left = list[dict[str, Any]](), _MOST_CHARACTERS
    for row in islice(log.rows(newest=newest, reverse=newest is not None, **within), lines):
        found.append(_line(row))
        left -= sum(len(value) for value in found[-1].values() if isinstance(value, str))
        if left < 0:
            break
    complete = len(found) < lines and left >= 0
    if newest is not None:
        found.reverse()
    gaps = _gaps_beside(log, within, found, order=order, complete=complete)
    return {"rows": found, "gaps": gaps, **place, "complete": complete}


def _gaps_beside(
    log: LogReader, filters: Filters, found: list[dict[str, Any]], *, order: str, complete: bool
) -> list[dict[str, Any]]:
    """Return the gaps before, between and after the rows of a page; each gap is on one page only."""
    bounds: Filters = {**filters}
    more_follow = found and not complete
    if more_follow and order == "newest":
        # The gap right before the first row belongs to the page before.
        bounds["after_id"] = found[0]["id"]
    if more_follow and order == "oldest":
        bounds["up_to_id"] = found[-1]["id"]
    elif (last_id := filters.get("up_to_id")) is not None:
        # `up_to_id` leaves out the gap after that row, which this page has to show.
        bounds["up_to_id"] = min(last_id + 1, HIGHEST)
    return [dataclasses.asdict(gap) for gap in islice(log.gaps(**bounds), _MOST_ROWS)]


def _line(row: Row) -> dict[str, Any]:
    """Return the parts of a row that a list shows."""
    return {
        **{name: getattr(row, name) for name in ("id", "created_us", "levelno", "level", "logger", "exc_type")},
        "message": row.message[:_SHOWN_CHARACTERS],
        "cut": len(row.message) > _SHOWN_CHARACTERS,
        "extra": row.attributes is not None,
    }


def row(log: LogReader, query: Query) -> Answer:
    """Answer one whole row, and its run."""
    id_ = query.number("id")
    query.finish()
    if id_ is None:
        raise FilterError("id is missing: name a row")
    found = next(log.rows(after_id=id_ - 1, up_to_id=id_), None)
    if found is None:
        raise UnknownRowError(f"there is no row {id_}: retention deleted it, or it was never there")
    values = found._asdict()
    extra = found.extra
    # If it is nothing that a handler writes, such as one that is nested deeper, the page shows its text.
    values["extra"] = extra if extra and _is_plain(extra, _DEEPEST) else None
    values["run"] = _run_of(log, found.id)
    pattern = json.dumps(dataclasses.astuple(shared_source(log, found.id)), ensure_ascii=False)
    values["pattern"] = pattern if len(pattern) <= _LONGEST_PATTERN else None
    head = f"{found.time or found.created_us} {found.level} {found.logger}: {found.message}"
    return {**values, "text": "\n".join(filter(None, (head, found.exc_text, found.stack_info)))}


def _is_plain(value: Any, depth: int) -> bool:
    """Tell whether JSON has words for all numbers, and lists and dicts are nested no deeper than `depth`."""
    if isinstance(value, float):
        return isfinite(value)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_is_plain(one, depth - 1) for one in inner)


def _run_of(log: LogReader, id_: int) -> int | None:
    """Return the run of a row, as `--run` counts: 0 the last, -1 the one before; None if it is further back."""
    with suppress(FilterError):  # there are fewer runs
        for run in range(0, -_RUNS, -1):
            if log.count(run=run, after_id=id_ - 1, up_to_id=id_):
                return run
    return None


def histogram(log: LogReader, query: Query) -> Answer:
    """Answer how many records were logged, by level, and dropped over time."""
    filters = query.filters()
    bucket = query.text("bucket")
    most = query.number("most", least=2, most=_MOST_BUCKETS)
    counted = query.number("counted-id", least=0)
    query.finish()
    last_id = log.last_id()
    # What is committed from now on is counted after `last_id`, so a sum of answers counts each record once.
    later: Filters = {**up_to(filters, last_id), "after_id": max(counted or 0, filters.get("after_id") or 0)}
    found = log.histogram(bucket, most=most or 120, **later)
    most = most or _MOST_BUCKETS
    if len(found) > most:
        raise FilterError(f"bucket={bucket!r} makes {len(found):,} buckets, and most={most}: take a longer one")
    # A gap has no id, and its count may still grow.
    dropped = dropped_over_time(log.gaps(**filters), found[0].until_us - found[0].since_us) if found else {}
    return {
        "buckets": [{**dataclasses.asdict(one), "dropped": dropped[one.since_us]} for one in found],
        "last_id": last_id,
        "log_id": log_id(log),
    }


def top(log: LogReader, query: Query) -> Answer:
    """Answer who logs most."""
    filters = query.filters()
    by: Any = query.text("by") or "logger"
    key = query.text("key")
    lines = query.number("lines", least=1, most=_MOST_GROUPS) or 10
    query.finish()
    found = log.top(by, key=key, **filters)
    return {"by": by, "groups": len(found), "top": [dataclasses.asdict(one) for one in found[:lines]]}


def keys(log: LogReader, query: Query) -> Answer:
    """Answer the names of attributes in the newest rows, the most frequent first."""
    filters = query.filters()
    query.finish()
    found: Counter[str] = Counter()
    for row in log.rows(newest=_SAMPLED, **filters):
        # A program that logs what strangers send may have names without end, and long ones.
        found.update(
            key for key in row.extra if key in found or (len(found) < _MOST_COUNTED and len(key) <= _LONGEST_KEY)
        )
    return {"keys": [key for key, _ in found.most_common(_MOST_KEYS)]}


def gaps(log: LogReader, query: Query) -> Answer:
    """Answer the gaps of the log, the latest last."""
    filters = query.filters()
    lines = query.number("lines", least=1, most=_MOST_ROWS) or _MOST_ROWS
    query.finish()
    found = log.gaps(**filters)
    return {"gaps": [dataclasses.asdict(one) for one in found[-lines:]], "of": len(found)}


def brief(log: LogReader, query: Query) -> Answer:
    """Answer what failed and what changed, by pattern: since the last run began, or a time."""
    since = query.text("since")
    query.finish()
    found = log.brief(since)

    def told(pattern: Pattern) -> Answer:
        levelno = max(pattern.levels)
        name = level_name(found.level_names, levelno)
        times = None if pattern.last_id in (found.new or ()) else found.grown.get(pattern.last_id, 1)
        return {**dataclasses.asdict(pattern), "levelno": levelno, "level": name, "times": times}

    failed = [pattern for pattern in found.patterns if pattern.last_error_id is not None]
    changes = found.changes()
    return {
        "runs": found.runs,
        "is_last_run": found.is_last_run,
        "since_us": found.since_us,
        "records": found.records,
        "is_compared": found.new is not None,
        "errors": [told(pattern) for pattern in failed[:_MOST_CHANGES]],
        "changes": [told(pattern) for pattern in sorted(changes[:_MOST_CHANGES], key=lambda one: one.first_us)],
        "of": len(changes),
        "left_out": found.left_out,
    }


def stats(log: LogReader, query: Query) -> Answer:
    """Answer the statistics of the log, and the time of this machine."""
    by_level = query.number("levels", least=0, most=1) != 0
    query.finish()
    return {
        **dataclasses.asdict(log.stats(by_level=by_level)),
        "schema": log.schema,
        "notice": log.notice,
        "now_us": now_us(),
    }


ANSWERS: Final[Mapping[str, Callable[[LogReader, Query], Answer]]] = {
    answer.__name__: answer for answer in (rows, row, histogram, top, keys, gaps, brief, stats)
}


def exact(value: Any) -> Any:
    """Return `value` with each whole number that JavaScript would round as a text."""
    if isinstance(value, dict):
        return {str(key): exact(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [exact(one) for one in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -_EXACT <= value <= _EXACT:
        return str(value)
    return value
