"""
What is asked is what is found: every question against plain SQL that was written apart from it.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from datetime import UTC, datetime, timedelta

import hostile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sqlite_log_handler import LogReader

HOUR = 3_600_000_000
BEGIN = 1_700_000_000 // 3600 * HOUR
MOMENTS = [BEGIN + hours * HOUR + more for hours in (0, 1, 13) for more in (-1, 0, 1, 1_000_000)]
LOGGERS = ["a", "a.b", "ab", "b", "a.b.c"]
NUMBERS = [0, -1, 7, 7.0, 0.1, 1e16, 1e30, 2**53, 2.0**53, 2**53 + 1, 2**63, 2**64 - 1, -0.0, 1e-320, 10**30]
ATTRIBUTES = st.sampled_from([*NUMBERS, *map(str, NUMBERS), True, False, None, "true", "x", "", 'q"\\', "é", [1, "x"]])
ROWS = st.tuples(
    st.sampled_from(MOMENTS),
    st.sampled_from([5, 10, 20, 30, 50, -3]),
    st.sampled_from(range(len(LOGGERS))),
    st.sampled_from(["m", "Timed out", "timed", "50%_", "größe", "a\\b"]),
    st.sampled_from([None, "KeyError", "json.JSONDecodeError"]),
    st.sampled_from([None, "MainThread", "7"]),
    st.sampled_from(["plain", 'odd "key', "ké"]).flatmap(lambda key: st.none() | st.tuples(st.just(key), ATTRIBUTES)),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([None, "Task-1", "task"]),
)
# A line of the ledger: after which row, since when, until so much later, of which process, logger and level, how many.
DROPS = st.tuples(
    st.integers(0, 9),
    st.sampled_from(MOMENTS),
    st.sampled_from([0, 1, HOUR]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([*LOGGERS, "(other)"]),
    st.sampled_from([10, 20, 30]),
    st.integers(1, 9),
)
# Two processes of the first start, a child's that came later, and one of the second start.
PROCESSES = [(1, 41, "MainProcess", 1_000_000), (2, 42, "Process-1", 90_000_000), (3, 43, "MainProcess", 500_000_000)]
RUNS = {1: {1, 2}, 0: {3}, -1: {1, 2}}
VALUES = {
    "level": st.sampled_from([10, 20, 30, "10..20", "..10"]),
    "logger": st.sampled_from([*LOGGERS, ["a.b", "b"]]),
    "exclude": st.sampled_from(LOGGERS),
    "since": st.sampled_from(MOMENTS),
    "until": st.sampled_from(MOMENTS),
    "text": st.sampled_from(["timed", "Timed", "%_", "\\", "GRÖSSE", "m"]),
    "exception": st.sampled_from(["KeyError", "JSONDecodeError", "Error"]),
    "pattern": st.sampled_from(["timed", "T.med", r"[0-9]+%", r"\\", "gr(ö|oe)ße", "m|b", "^$"]),
    "thread": st.sampled_from(["MainThread", "7"]),
    "task": st.sampled_from(["Task-1", "none"]),
    "process": st.sampled_from([41, 42, 99]),
    "run": st.sampled_from([*RUNS]),
    "after_id": st.integers(0, 5),
    "up_to_id": st.integers(0, 9),
    "attributes": st.tuples(
        st.sampled_from(["plain", 'odd "key', "ké"]), ATTRIBUTES.filter(lambda value: not isinstance(value, list))
    ).map(lambda pair: dict([pair])),
}
# A few of them: with all of them nothing is left to find.
FILTERS = st.lists(st.sampled_from(sorted(VALUES)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names})
)
# Those that `top` answers from the table `volume`.
FULL_HOURS = st.sampled_from([BEGIN, BEGIN + HOUR, BEGIN + 13 * HOUR])
OF_VOLUME = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from([10, "10..20"]),
        "logger": st.sampled_from(LOGGERS),
        "since": FULL_HOURS,
        "until": FULL_HOURS,
    },
)


def moment(us):
    """Make the time that so many microseconds are."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=us)


def number_of(value):
    """Read a number as the reader's page says."""
    if isinstance(value, bool) or value is None:
        return None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(value) if isinstance(value, str) else value
    return None


def same(stored, wanted):
    """Tell whether two attributes are the same: as text, or as numbers."""
    text = wanted if isinstance(wanted, str) else json.dumps(wanted)
    if isinstance(stored, str):
        return stored == text
    if isinstance(stored, list):
        return json.dumps(stored, separators=(",", ":")) == text
    if isinstance(stored, int | float) and not isinstance(stored, bool) and number_of(text) == stored:
        return True
    return json.dumps(stored) == text


SIMPLE = {
    "thread": "thread_name = ?",
    "task": "task_name = ?",
    "process": "process = ?",
    "after_id": "id > ?",
    "up_to_id": "id <= ?",
}


def wanted(connection, filters):  # noqa: C901 - a branch for each filter
    """
    Ask plain SQL for the ids that match, one filter after the other.
    """
    found = {id_ for (id_,) in connection.execute("SELECT id FROM logs")}

    def keep(condition, *parameters):
        found.intersection_update(
            id_ for (id_,) in connection.execute(f"SELECT id FROM logs WHERE {condition}", parameters)
        )

    below = "(logger = ? OR logger GLOB ? || '.*')"
    for name, value in filters.items():
        if name == "level":
            low, _, high = str(value).rpartition("..") if ".." in str(value) else (value, "", "")
            low, high = (low, high) if ".." in str(value) else (value, "")
            keep("levelno >= ? AND levelno <= ?", int(low or -(2**62)), int(high or 2**62))
        elif name in {"logger", "exclude"}:
            names = [value] if isinstance(value, str) else value
            condition = " OR ".join([below] * len(names))
            keep(f"({condition})" if name == "logger" else f"NOT ({condition})", *(n for n in names for _ in range(2)))
        elif name in {"since", "until"}:
            keep(f"created_us {'>=' if name == 'since' else '<='} ?", value)
        elif name == "text":
            messages = connection.execute("SELECT id, message FROM logs").fetchall()
            found &= {i for i, m in messages if value in (m if value != value.lower() else m.lower())}
        elif name == "exception":
            keep("exc_type = ? OR exc_type GLOB '*.' || ?", value, value)
        elif name == "pattern":
            flags = 0 if value != value.lower() else re.IGNORECASE
            messages = connection.execute("SELECT id, message FROM logs").fetchall()
            found &= {i for i, m in messages if re.search(value, m, flags)}
        elif name in SIMPLE:
            keep(SIMPLE[name], value)
        elif name == "run":
            keep(f"process IN ({', '.join(str(40 + id_) for id_ in RUNS[value])})")
        else:
            ((key, one),) = value.items()
            stored = connection.execute("SELECT id, attributes FROM logs WHERE attributes IS NOT NULL")
            found &= {i for i, text in stored if key in (of := json.loads(text)) and same(of[key], one)}
    return sorted(found)


def wanted_gaps(drops, filters):
    """Choose lines of the ledger in Python: those that a wanted record may have been among."""

    def is_of(logger, names):
        return any(
            logger == name or logger.startswith(f"{name}.") for name in ([names] if isinstance(names, str) else names)
        )

    def may_be(drop):
        after_id, since, longer, process, logger, level, _ = drop
        low, _, high = str(filters.get("level", "..")).partition("..")
        high = high if ".." in str(filters.get("level", "..")) else ""
        return (
            int(low or -99) <= level <= int(high or 99)
            and ("logger" not in filters or logger == "(other)" or is_of(logger, filters["logger"]))
            and ("exclude" not in filters or not is_of(logger, filters["exclude"]))
            and filters.get("since", 0) <= since + longer
            and since <= filters.get("until", since)
            and filters.get("process", 40 + process) == 40 + process
            and ("run" not in filters or process in RUNS[filters["run"]])
            and filters.get("after_id", 0) <= after_id < filters.get("up_to_id", 99)
        )

    return sorted((after_id, since, count) for after_id, since, *_, count in filter(may_be, drops))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS, min_size=1, max_size=9), st.lists(DROPS, max_size=4), FILTERS | OF_VOLUME)
@example([(BEGIN + HOUR, 20, 0, "m", None, None, None, 1, None)], [], {"until": BEGIN + HOUR})
@example([(BEGIN, 20, 0, "m", None, None, ("plain", 1e30), 1, None)], [], {"attributes": {"plain": 1e30}})
def test_every_question_finds_what_plain_sql_finds(tmp_path_factory, rows, drops, filters):
    """
    Rows, JSON, the newest, counts, `top`, the histogram and the gaps are those of plain SQL, over logs with edges.

    Floats of 2**53 and more matched nothing, and `top` left out a record at exactly a full hour.
    """
    if filters.get("since", 0) > filters.get("until", 2**62):
        del filters["since"]
    path = hostile.make(tmp_path_factory.mktemp("found") / "app-log.db", rows="")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executemany("INSERT INTO processes VALUES (?, 'host', ?, ?, ?, 'app')", PROCESSES)
        for after_id, since, longer, process, logger, level, count in drops:
            connection.execute(
                "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
                "VALUES (?, ?, ?, ?, 'queue_full', ?, ?, ?)",
                (after_id, since, since + longer, process, logger, level, count),
            )
        for id_, logger in enumerate(LOGGERS):
            connection.execute("INSERT INTO sources VALUES (?, ?, '/app.py', 1, 'work', '')", (id_, logger))
        for us, level, source, message, exception, thread, attribute, process, task in rows:
            attributes = attribute and json.dumps(dict([attribute]), ensure_ascii=False)
            connection.execute(
                "INSERT INTO records (created_us, levelno, source_id, process_id, message, exc_type, thread_name, "
                "attributes, task_name) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (us, level, source, process, message, exception, thread, attributes, task),
            )
        expected = wanted(connection, filters)
        by_level = dict(connection.execute(
            f"SELECT levelno, count(*) FROM records WHERE id IN ({','.join(map(str, expected))}) GROUP BY 1"
        ))  # fmt: skip
        by_logger = dict(connection.execute(
            f"SELECT logger, count(*) FROM logs WHERE id IN ({','.join(map(str, expected))}) GROUP BY 1"
        ))  # fmt: skip

    asked = {name: moment(value) if name in {"since", "until"} else value for name, value in filters.items()}
    with LogReader(path) as reader:
        assert expected == [row.id for row in reader.rows(**asked)]
        assert expected[::-1] == [row.id for row in reader.rows(**asked, reverse=True)]
        assert expected == [json.loads(line)["id"] for line in reader.json_lines(**asked)]
        assert expected[-2:] == [row.id for row in reader.rows(**asked, newest=2)]
        assert len(expected) == reader.count(**asked)
        gaps = sorted((gap.after_id, gap.since_us, gap.count) for gap in reader.gaps(**asked))
        assert wanted_gaps(drops, filters) == gaps
        levels: dict[int, int] = {}
        for bucket in reader.histogram("30min", **asked):
            for level, count in bucket.levels.items():
                levels[level] = levels.get(level, 0) + count
        assert by_level == levels
        assert by_logger == {talker.name: talker.records for talker in reader.top(**asked) if talker.records}
        assert len(expected) == sum(talker.records for talker in reader.top("level", **asked))
        assert len(expected) == sum(talker.records for talker in reader.top("source", **asked))
