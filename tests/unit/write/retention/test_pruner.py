"""
Retention at work, on real files: what is deleted, what stays, what is written down, and what the file takes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._logfile.connect import connect_read_only
from sqlite_log_handler._write.retention import pruner as pruner_module
from sqlite_log_handler._write.retention.limits import Limits, NoRoom
from sqlite_log_handler._write.retention.pruner import Pruner, look, reading_processes
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from conftest import Clock

DAY = 86_400.0
HOUR_US = 3_600_000_000
NOW = 1_700_000_000.0

INSERT = """
WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count)
INSERT INTO records (created_us, levelno, source_id, process_id, message)
SELECT :created + n * :step, 20, :source, 1, printf('%' || :width || 'd', n) FROM numbers
"""


class Log:
    """
    A log that is filled by SQL, with a pruner on a clock moved by hand.
    """

    def __init__(self, path: Path, clock: Clock, said: list[str]) -> None:
        self.path = str(path)
        self.clock = clock
        self.said = said
        self.wall = clock.now = NOW
        self.writer = Writer(self.path, busy_timeout=0)
        self.writer.open()
        self.connection: Any = self.writer.connection
        self.connection.execute("INSERT INTO sources VALUES (1, 'app', '/app.py', 1, 'main')")
        self.connection.execute("INSERT INTO processes VALUES (1, 'host', 1, 'MainProcess', 0, 'app')")

    def fill(self, count: int, *, age: float = 0, step: float = 0, width: int = 1, source: int = 1) -> None:
        """
        Add rows, the first of that age in seconds, each `step` seconds younger than the one before.
        """
        values = {"created": round((NOW - age - step) * 1e6), "step": round(step * 1e6)}
        self.connection.execute(INSERT, {"count": count, "width": width, "source": source, **values})

    def pruner(self, **limits: Any) -> Pruner:
        """
        Make a pruner.
        """
        return Pruner(self.path, Limits(**limits), say=self.said.append, now=lambda: self.wall, clock=self.clock)

    def prune(self, pruner: Pruner, **options: Any) -> int:
        """
        Prune until there is nothing more to do; return the number of steps.
        """
        steps = 1
        while pruner.step(self.connection, **options) == 0:
            steps += 1
            assert steps < 10_000
        return steps

    def no_room(self, pruner: Pruner) -> str | None:
        """
        Make room for a commit; return why there is none.
        """
        try:
            pruner.make_room(self.connection)
        except NoRoom as error:
            return str(error)
        return None

    def ask(self, sql: str, *parameters: object) -> list[Any]:
        """
        Query the log.
        """
        return self.connection.execute(sql, parameters).fetchall()

    @property
    def ids(self) -> list[int]:
        """
        The ids that are left.
        """
        return [row for (row,) in self.ask("SELECT id FROM records ORDER BY id")]

    @property
    def rows(self) -> tuple[int, int, int]:
        """
        First id, last id, count.
        """
        return self.ask("SELECT min(id), max(id), count(*) FROM records")[0]

    @property
    def taken(self) -> int:
        """
        Bytes of file and WAL.
        """
        return sum(os.stat(self.path + end).st_size for end in ("", "-wal"))


@pytest.fixture
def said() -> list[str]:
    """
    What the operator was told.
    """
    return []


@pytest.fixture
def log(path: Path, clock: Clock, said: list[str]) -> Iterator[Log]:
    """
    The log of the test.
    """
    log = Log(path, clock, said)

    yield log

    assert [("ok",)] == log.ask("PRAGMA integrity_check")
    log.writer.close()


@pytest.fixture
def reader(path: Path) -> Iterator[Callable[[], sqlite3.Connection]]:
    """
    Hold a snapshot: `reader()`; closing what it returns lets go of it.
    """
    with contextlib.ExitStack() as stack:

        def hold() -> sqlite3.Connection:
            connection = stack.enter_context(contextlib.closing(connect_read_only(str(path))))
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM records").fetchone()
            return connection

        yield hold


# max_rows -------------------------------------------------------------------------------------------------------------


def test_the_newest_rows_are_kept(log):
    """`max_rows` keeps the newest rows, by their ids, and never more."""
    log.fill(250)
    log.prune(log.pruner(max_rows=100))

    assert (152, 250, 99) == log.rows


@pytest.mark.parametrize(
    "limits", [{"max_age": 1}, {"max_rows": 1}, {"max_bytes": 1_500_000}], ids=lambda given: next(iter(given))
)
def test_the_newest_row_always_stays(log, limits):
    """
    Whatever the limit, the newest row stays, so that the next row gets an id that no row ever had.

    SQLite gives the highest id plus one. When retention had deleted all rows, it would have begun at 1 again, and a
    reader who follows by id would have missed all rows up to the one that it read last.
    """
    log.fill(10, age=100)
    log.connection.execute("CREATE TABLE somebody_elses AS SELECT printf('%1500000d', 1)")
    pruner = log.pruner(**limits)
    log.prune(pruner)
    log.no_room(pruner)
    assert [10] == log.ids
    log.fill(1)

    assert [10, 11] == log.ids


def test_rows_go_chunk_by_chunk(log, monkeypatch):
    """Each transaction deletes a chunk and no more, so that whoever waits for the lock gets it in between."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    left = []
    log.fill(108)
    pruner = log.pruner(max_rows=80)
    log.connection.set_trace_callback(lambda sql: left.append(log.rows[2]) if sql == "COMMIT" else None)
    steps = log.prune(pruner)
    log.connection.set_trace_callback(None)

    assert [98, 88, 80] == left
    # At once until no more than a tenth too many are left; what follows waits for the next step.
    assert 2 == steps


# max_age --------------------------------------------------------------------------------------------------------------


def test_rows_beyond_max_age_go(log):
    """`max_age` deletes the rows that are older."""
    log.fill(10, age=10, step=1)  # aged 10, 9, ... 1
    log.prune(log.pruner(max_age=5.5))

    assert [6, 7, 8, 9, 10] == log.ids


def test_age_is_looked_at_once_per_hundredth(log):
    """Rows that come of age one by one go together: a row stays a hundredth of `max_age` too long at most."""
    log.fill(200, age=100, step=0.5)
    pruner = log.pruner(max_age=100)
    log.prune(pruner)
    assert 200 == len(log.ids)
    log.wall += 0.6
    log.clock.advance(0.6)
    log.prune(pruner)
    assert 200 == len(log.ids)
    log.wall += 0.5
    log.clock.advance(0.5)
    log.prune(pruner)

    assert (4, 200, 197) == log.rows


def test_the_next_row_to_come_of_age_is_waited_for(log):
    """When nothing is due, `step` says when the oldest row will be, in seconds; nothing waits for the newest row."""
    log.fill(2, age=30)
    pruner = log.pruner(max_age=100)
    assert 70 == pruner.step(log.connection)
    log.clock.advance(50)
    log.wall += 50
    assert 20 == pruner.step(log.connection)
    log.clock.advance(20.5)
    log.wall += 20.5
    assert 0 == pruner.step(log.connection)

    assert (None, [2]) == (pruner.step(log.connection), log.ids)


def test_without_max_age_nothing_is_waited_for(log):
    """A log that is within `max_rows` and `max_bytes` needs no look until more is written."""
    log.fill(10)

    assert None is log.pruner(max_rows=10, max_bytes=50_000_000).step(log.connection)


def test_a_row_from_before_the_clock_was_set_takes_no_younger_one_with_it(log):
    """
    Rows go in the order of their ids, up to the first that is young: a machine that starts with its clock in 1970 logs
    rows that are old at once, after yesterday's.
    """
    log.fill(5, age=2 * DAY)
    log.fill(5, age=DAY / 2)
    log.fill(5, age=NOW - 5)  # 1970
    log.fill(5)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(6, 21)) == log.ids


def test_a_row_of_the_future_keeps_no_older_one(log):
    """A clock that was ahead for a while leaves rows of the future, which go with the old ones around them."""
    log.fill(5, age=2 * DAY)
    log.fill(5, age=-300 * DAY)
    log.fill(5, age=2 * DAY)
    log.fill(5, age=-300 * DAY)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(16, 21)) == log.ids


def test_more_rows_of_the_future_than_a_chunk_has_keep_no_older_one(log, monkeypatch):
    """
    A clock that was years ahead for some thousand rows kept all that came later, for years.

    They go a chunk at a time, and only as far as the next row is an old one.
    """
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(35, age=-300 * DAY)
    log.fill(5, age=2 * DAY)
    log.fill(5)
    log.fill(35, age=-300 * DAY)
    log.fill(5, age=2 * DAY)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(41, 86)) == log.ids


def test_rows_of_the_future_before_a_young_one_stay(log, monkeypatch):
    """No row goes because of its age when the next one that is not of the future is young."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(35, age=-300 * DAY)
    log.fill(5)
    log.fill(5, age=2 * DAY)
    log.prune(log.pruner(max_age=DAY))

    assert list(range(1, 46)) == log.ids


def test_a_clock_that_jumps_back_deletes_nothing(log):
    """When the clock is set back, all rows are of the future, and none of them is old."""
    log.fill(100, age=10, step=0.1)
    log.wall -= 100 * DAY
    log.prune(log.pruner(max_age=60))

    assert 100 == len(log.ids)


def test_a_clock_that_jumps_ahead_deletes_in_chunks(log, monkeypatch):
    """A clock that jumps ahead makes all rows old; they go in chunks, and when it is put right the rest stays."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(100)
    pruner = log.pruner(max_age=DAY)
    log.wall += 365 * DAY
    pruner.step(log.connection)
    log.wall = NOW
    log.prune(pruner)

    assert (11, 100, 90) == log.rows


# max_bytes ------------------------------------------------------------------------------------------------------------


def test_bytes_come_down_by_rows(log):
    """`max_bytes` deletes the oldest rows until file and WAL are within it, and gives back the pages beyond."""
    log.fill(5_000, width=1_000)
    assert log.taken > 6_000_000
    pruner = log.pruner(max_bytes=2_000_000)
    log.prune(pruner)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    first, last, count = log.rows
    assert (5_000, 5_000 - first + 1) == (last, count)
    assert 1_400_000 <= count * 4_096 / 3 <= 1_625_000  # three rows to a page
    assert log.taken <= 1_750_000


def test_a_steady_log_gives_nothing_back(log, monkeypatch):
    """A log that stands at its budget uses its free pages again: the file neither grows nor shrinks."""
    pruner = log.pruner(max_bytes=4_000_000)
    pages = []
    for _ in range(100):
        log.fill(200, width=1_000)
        assert None is log.no_room(pruner)
        log.prune(pruner)
        pages.append(log.ask("PRAGMA page_count")[0][0])

    assert 1 == len(set(pages[40:]))
    assert log.taken <= 4_000_000


def test_the_wal_of_a_small_budget_is_small(path):
    """With `max_bytes` SQLite writes the WAL back sooner, and cuts it to its share of the budget."""
    with contextlib.closing(Writer(str(path), limits=Limits(max_bytes=16_000_000))) as writer:
        writer.open()

        assert (2_000_000,) == writer.connection.execute("PRAGMA journal_size_limit").fetchone()
        assert (1_000_000 // 4_096,) == writer.connection.execute("PRAGMA wal_autocheckpoint").fetchone()


def test_there_is_no_room_beside_a_reader_that_stays(log, reader, said):
    """While a reader keeps the WAL nothing is deleted, which would only add to it; at the budget there is no room."""
    log.fill(500, width=1_000)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pruner = log.pruner(max_bytes=2_000_000)
    held = reader()
    rounds = 0
    while (why := log.no_room(pruner)) is None:
        log.fill(50, width=1_000)
        pruner.step(log.connection)
        log.clock.advance(1)
        rounds += 1
    taken, rows = log.taken, log.rows

    # What is in the WAL and is to make the file longer counts twice, because the file grows before the WAL is emptied.
    assert 1_250_000 < taken <= 2_000_000
    assert why.startswith("file and WAL take ")
    assert "of max_bytes 2.0 MB, and a reader holds a snapshot since 2023-11-14T22:" in why
    assert (1, rounds * 50 + 500) == rows[:2]
    assert 1 == len([line for line in said if "a reader holds a snapshot" in line])

    held.close()
    log.clock.advance(1)
    assert None is log.no_room(pruner)
    log.fill(500, width=1_000)
    log.prune(pruner)
    assert log.rows[0] > 1
    assert "the reader has let go of its snapshot, pruning again" == said[-1]


def test_a_short_reader_is_not_worth_a_line(log, reader, said):
    """A reader that is gone at the next attempt is not spoken of."""
    log.fill(1_000, width=1_000)
    pruner = log.pruner(max_bytes=1_500_000)
    held = reader()
    log.fill(200, width=1_000)
    assert 1.0 == pruner.step(log.connection)
    held.close()
    log.clock.advance(1)
    log.prune(pruner)

    assert [] == said


def test_the_checkpoint_is_not_tried_at_each_step(log, reader):
    """The WAL of a reader that stays is looked at once a second: each attempt waits for the busy timeout."""
    log.fill(1_000, width=1_000)
    pruner = log.pruner(max_bytes=1_500_000)
    reader()
    log.fill(200, width=1_000)
    tried = []
    log.connection.set_trace_callback(lambda sql: tried.append(sql) if "wal_checkpoint" in sql else None)
    for _ in range(5):
        pruner.step(log.connection)
        log.clock.advance(0.5)
    log.connection.set_trace_callback(None)

    assert 3 == len(tried)


def test_when_nothing_can_be_deleted_it_is_said(log):
    """When what is no row takes more than the budget, and cannot be cut, there is no room, and the reason says why."""
    log.connection.execute("CREATE TABLE somebody_elses AS SELECT printf('%1500000d', 1)")
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pruner = log.pruner(max_bytes=1_500_000)

    assert log.no_room(pruner).endswith("no row is left that could be deleted")


def test_a_file_made_without_auto_vacuum_is_said_and_left(log, said):
    """A file made without auto_vacuum is named once, never vacuumed by surprise, and kept from growing all the same."""
    log.connection.execute("PRAGMA auto_vacuum = NONE")
    log.connection.execute("VACUUM")
    log.fill(5_000, width=1_000)
    size = log.ask("PRAGMA page_count")
    pruner = log.pruner(max_bytes=2_000_000)
    for _ in range(30):
        log.prune(pruner)
        assert None is log.no_room(pruner)
        log.fill(50, width=1_000)

    assert size == log.ask("PRAGMA page_count")
    assert 1 == len(said)
    assert "without auto_vacuum" in said[0]


def test_another_file_is_looked_at_again(log, said, tmp_path):
    """A file that came in place of the one that was open may be made in another way: nothing is tried for ever."""
    log.connection.execute("PRAGMA auto_vacuum = NONE")
    log.connection.execute("VACUUM")
    log.fill(5_000, width=1_000)
    log.writer.close()
    path = str(tmp_path / "open.db")
    writer = Writer(path, busy_timeout=0, limits=Limits(max_rows=10), say=said.append)
    writer.open()
    assert None is writer.prune()
    writer.close()
    os.replace(log.path, path)
    writer.open()
    log.writer, log.connection = writer, writer.connection

    assert 100 > next(steps for steps in range(1_000) if writer.prune() is None)
    assert (4_991, 5_000, 10) == log.rows
    writer.close()
    writer.open()
    log.connection = writer.connection
    assert None is writer.prune()
    assert 1 == len(said), "once, however often it is opened"


def test_another_file_may_be_full(log):
    """The room that was found in one file is not spent in another one that came in its place."""
    pruner = log.pruner(max_bytes=2_000_000)
    assert None is log.no_room(pruner)
    log.fill(2_500, width=1_000)
    assert None is log.no_room(pruner)
    assert (1, 2_500, 2_500) == log.rows

    pruner.opened(log.path)

    assert None is log.no_room(pruner)
    assert 2_500 > log.rows[2]


# What is written down -------------------------------------------------------------------------------------------------


def test_prunes_say_what_was_deleted(log, monkeypatch):
    """A run of deletions is one line for its cause and hour: which ids, when, how many."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._CHUNK_ROWS", 10)
    log.fill(100)
    pruner = log.pruner(max_rows=50)
    log.prune(pruner)
    log.wall += 60
    log.fill(20)
    log.prune(pruner)

    since = round(NOW * 1e6)
    assert [(1, 70, since, since + 60_000_000, "max_rows", 70, 0)] == log.ask(
        "SELECT first_id, last_id, since_us, until_us, cause, count, unsent FROM prunes"
    )
    assert {"max_rows": 70} == pruner.deleted


def test_each_cause_and_each_hour_has_a_line(log):
    """Another cause, or another hour, begins a new line."""
    log.fill(10, age=DAY)
    log.fill(20)
    log.prune(log.pruner(max_age=3_600))
    log.prune(log.pruner(max_rows=15))
    log.wall += 3_600
    log.prune(log.pruner(max_rows=12))

    assert [(1, 10, "max_age", 10), (11, 15, "max_rows", 5), (16, 18, "max_rows", 3)] == log.ask(
        "SELECT first_id, last_id, cause, count FROM prunes ORDER BY id"
    )


@pytest.mark.parametrize(("cursors", "unsent"), [([], 0), ([25], 15), ([25, 12], 28), ([40], 0), ([90], 0), ([0], 40)])
def test_rows_that_were_not_yet_sent_are_counted(log, cursors, unsent):
    """`unsent` counts the deleted rows that the slowest cursor had not passed; without a cursor there are none."""
    log.fill(100)
    for number, after_id in enumerate(cursors):
        log.connection.execute("INSERT INTO cursors VALUES (?, ?, 0)", (f"to {number}", after_id))
    log.prune(log.pruner(max_rows=60))

    assert [(40, unsent)] == log.ask("SELECT count, unsent FROM prunes")


def test_volume_is_kept_apart(log):
    """What was attempted by hour, logger and level stays when the rows go."""
    log.connection.execute("INSERT INTO volume VALUES (0, 'app', 20, 100, 1000, 5)")
    log.fill(100)
    log.prune(log.pruner(max_rows=1))

    assert [(0, "app", 20, 100, 1_000, 5)] == log.ask("SELECT * FROM volume")


# The tables beside the rows -------------------------------------------------------------------------------------------


@pytest.fixture
def few_lines(monkeypatch):
    """
    Keep 10 lines only.
    """
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._LINES", (10, 10))
    monkeypatch.setattr(pruner_module, "_ROWS_PER_LINE", 1)


def test_drops_outlive_their_rows_but_not_for_ever(log, few_lines):
    """Of the gaps whose place is deleted the newest are kept; those whose place is there stay, however many."""
    log.fill(100)
    for after_id in (*range(10, 50), *range(80, 100)):
        log.connection.execute("INSERT INTO drops VALUES (NULL, ?, 0, 0, 1, 'queue_full', 'app', 20, 1)", (after_id,))
    log.prune(log.pruner(max_rows=25))

    assert [*range(40, 50), *range(80, 100)] == [line for (line,) in log.ask("SELECT after_id FROM drops ORDER BY id")]


def test_the_newest_hours_of_volume_are_kept(log, few_lines):
    """Of `volume` the newest lines are kept."""
    log.connection.executemany(
        "INSERT INTO volume (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(99)]
    )
    log.fill(100)
    log.prune(log.pruner(max_rows=50))

    assert list(range(89, 99)) == [line for (line,) in log.ask("SELECT hour FROM volume ORDER BY hour")]


def test_lines_are_cut_though_one_chunk_was_enough(log, few_lines):
    """A chunk of large rows may free more than it was to; what is beside the rows is cut after it as well."""
    log.connection.executemany(
        "INSERT INTO volume (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(99)]
    )
    log.fill(3, width=300_000)
    log.fill(5_000, width=100)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.pruner(max_bytes=1_500_000).step(log.connection)

    assert 3 < log.rows[0] < 100
    assert [(10,)] == log.ask("SELECT count(*) FROM volume")


def test_many_lines_go_in_few_statements(log, few_lines):
    """Each statement is a wait for the GIL, and lines that go are not read: 600,000 of them took 80 MB."""
    log.connection.executemany(
        "INSERT INTO volume (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(20_000)]
    )
    log.fill(100)
    statements = []
    log.connection.set_trace_callback(statements.append)
    log.prune(log.pruner(max_rows=50))

    assert 500 > len(statements)
    assert [(10, 19_990)] == log.ask("SELECT count(*), min(hour) FROM volume")


def test_few_sources_are_not_looked_for_in_a_small_file(log):
    """With `max_bytes`, rows are not all read for a few sources each time as many have gone as there are."""
    pruner = log.pruner(max_bytes=2_000_000)
    log.fill(1)
    statements = []
    log.connection.set_trace_callback(statements.append)
    for _ in range(20):
        log.fill(200, width=1_000)
        assert None is log.no_room(pruner)
        log.prune(pruner)

    assert log.rows[0] > 1_500
    assert not [statement for statement in statements if "DISTINCT" in statement]


def test_a_log_within_its_limits_keeps_all_lines(log, few_lines):
    """Where no row goes, nothing beside the rows goes either."""
    log.connection.executemany(
        "INSERT INTO volume (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(99)]
    )
    log.fill(50)
    log.prune(log.pruner(max_rows=50))

    assert [(99,)] == log.ask("SELECT count(*) FROM volume")


def test_the_newest_prunes_are_kept(log, few_lines):
    """Of `prunes` the newest lines are kept."""
    pruner = log.pruner(max_rows=1)
    log.fill(1)
    for _ in range(50):
        log.fill(5)
        log.prune(pruner)
        log.wall += 3_600

    assert 10 <= log.ask("SELECT count(*) FROM prunes")[0][0] <= 20
    assert [(251,)] == log.ask("SELECT max(last_id) + 1 FROM prunes")


def sources(log: Log, count: int) -> None:
    """
    Make sources 2, 3, ...
    """
    log.connection.executemany(
        "INSERT INTO sources VALUES (?, ?, '/app.py', 1, 'main')", [(n, f"app.{n}") for n in range(2, count + 1)]
    )


def test_sources_go_when_no_row_is_of_them(log, few_lines):
    """Sources and processes that no row is of any more go, but the last one, so that no id is given again."""
    sources(log, 60)
    log.connection.executemany("INSERT INTO processes VALUES (?, 'host', ?, '', 0, '')", [(n, n) for n in range(2, 60)])
    log.fill(100, source=3)
    log.fill(50, source=40)
    log.connection.execute("INSERT INTO drops VALUES (NULL, 149, 0, 0, 7, 'queue_full', 'app', 20, 1)")
    pruner = log.pruner(max_rows=50)
    log.prune(pruner)

    assert [(40,), (60,)] == log.ask("SELECT id FROM sources ORDER BY id")
    assert [(1,), (7,), (59,)] == log.ask("SELECT id FROM processes ORDER BY id")
    assert pruner.swept


def test_few_sources_are_not_looked_for(log, few_lines):
    """As long as there are few sources, or most were in use when last looked at, the rows are not read for them."""
    sources(log, 10)
    log.fill(100)
    pruner = log.pruner(max_rows=50)
    log.prune(pruner)

    assert (10, False) == (log.ask("SELECT count(*) FROM sources")[0][0], pruner.swept)


def test_a_source_that_comes_while_rows_are_looked_through_stays(log, few_lines, monkeypatch):
    """Rows are looked through in slices, and what is logged meanwhile keeps its source."""
    monkeypatch.setattr(pruner_module, "_SWEEP_ROWS", 10)
    sources(log, 60)
    log.fill(150, source=3)
    pruner = log.pruner(max_rows=100)
    pruner.step(log.connection)
    for _ in range(5):
        assert 0 == pruner.step(log.connection)
        assert not pruner.swept
    log.fill(5, source=31)
    log.fill(3, source=30)
    log.prune(pruner)

    assert [(3,), (30,), (31,), (60,)] == log.ask("SELECT id FROM sources ORDER BY id")


def test_what_was_found_in_use_in_another_file_is_forgotten(log, few_lines, monkeypatch, tmp_path):
    """
    When a file comes in place of the one whose rows are looked through, its own rows tell which sources are in use.

    Its sources were deleted, and then the view `logs` has nothing of the rows that are of them.
    """
    monkeypatch.setattr(pruner_module, "_SWEEP_ROWS", 10)
    sources(log, 60)
    log.fill(150, source=40)
    pruner = log.pruner(max_rows=100)
    pruner.step(log.connection)
    assert 0 == pruner.step(log.connection)
    log.writer.close()
    log.path = str(tmp_path / "open.db")
    log.writer = Writer(log.path, busy_timeout=0)
    log.writer.open()
    log.connection = log.writer.connection
    log.connection.execute("INSERT INTO processes VALUES (1, 'host', 1, 'MainProcess', 0, 'app')")
    sources(log, 60)
    log.fill(5, source=3)

    pruner.opened(log.path)
    log.prune(pruner)

    assert [(5,)] == log.ask("SELECT count(*) FROM logs")
    assert [(3,), (60,)] == log.ask("SELECT id FROM sources ORDER BY id")


def overflow(log: Log, start: int, count: int, width: int = 60) -> None:
    """
    Log a row of each of so many loggers, whose names are so long; half of them also drop one.
    """
    numbers = range(start, start + count)
    names = [f"{number:0{width}}" for number in numbers]
    log.connection.execute("BEGIN")
    log.connection.executemany(
        "INSERT INTO sources VALUES (?, ?, '/app.py', 1, 'main')", zip(numbers, names, strict=True)
    )
    log.connection.executemany("INSERT INTO volume (hour, logger, levelno) VALUES (1, ?, 20)", [(n,) for n in names])
    log.connection.executemany(
        "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (0, 20, ?, 1, 'opened')",
        [(n,) for n in numbers],
    )
    log.connection.executemany(
        "INSERT INTO drops SELECT NULL, max(id), 0, 0, 1, 'queue_full', ?, 20, 1 FROM records",
        [(n,) for n in names[::2]],
    )
    log.connection.execute("COMMIT")


@pytest.mark.parametrize(("width", "count", "rows", "most"), [(60, 6_000, 1_000, 1.1), (1_000, 1_000, 20, 1.3)])
@pytest.mark.parametrize("lifetime", [1_000_000, 30], ids=["one process", "many processes"])
def test_many_loggers_do_not_push_out_the_rows(log, width, count, rows, most, lifetime):
    """
    A program named a logger for each connection. Source, hour of `volume` and gaps took several times what the row
    takes, and stayed: each deletion freed a little, until no row was left, and then there was no room for ever. They go
    before the rows do, also when each process deletes a few rows only, and with names so long that the least number of
    lines is beyond the budget.
    """
    least = None
    for start in range(2, count, 5):
        if start % lifetime <= 5:
            pruner = log.pruner(max_bytes=1 << 20)
        assert None is log.no_room(pruner)
        overflow(log, start, 5, width)
        pruner.step(log.connection)
        if log.rows[0] > 1:
            least = min(least or log.rows[2], log.rows[2])
        assert log.taken < most * (1 << 20)

    assert least >= rows
    assert log.ask("SELECT count(*) FROM logs") == log.ask("SELECT count(*) FROM records")


def without_rows(log: Log, count: int, width: int) -> None:
    """
    Take the place of all rows, as such a program once did.
    """
    overflow(log, 2, count, width)
    log.connection.execute("DELETE FROM records")
    log.connection.execute("VACUUM")
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert look(log.connection, log.path).live > 1 << 20


@pytest.mark.parametrize("width", [60, 1_000])
def test_a_file_without_room_or_rows_is_written_to_again(log, width):
    """
    A file in which the tables beside the rows have taken the place of all rows has room as soon as somebody asks. The
    deletion that waits for that many rows never came, and the gaps of a file without rows counted as still in place.
    """
    without_rows(log, 240_000 // width, width)
    pruner = log.pruner(max_bytes=1 << 20)

    assert None is log.no_room(pruner)
    log.prune(pruner)
    assert look(log.connection, log.path).live < 1 << 19
    assert [(1, 1)] == log.ask("SELECT (SELECT count(*) FROM sources), (SELECT count(*) FROM processes)")
    for table in ("drops", "volume"):
        assert 0 < log.ask(f"SELECT count(*) * {width} FROM {table}")[0][0] <= 65_536
    assert pruner.swept


def test_cutting_lines_stops_at_a_reader_too(log, reader):
    """What goes from the tables beside the rows writes to the WAL as rows do: not beside a reader who stays."""
    without_rows(log, 4_000, 60)
    pruner = log.pruner(max_bytes=1 << 20)
    held = reader()

    assert "a reader holds a snapshot" in log.no_room(pruner)
    assert 100_000 < os.stat(log.path + "-wal").st_size < 270_000
    # The oldest have gone.
    first, last, count = log.ask("SELECT min(id), max(id), count(*) FROM drops")[0]
    assert (2_000, 2_001 - first) == (last, count)
    assert 1 < first < 1_000

    held.close()
    log.clock.advance(1)
    assert None is log.no_room(pruner)


def test_a_source_that_comes_while_others_are_deleted_stays(log, few_lines, monkeypatch):
    """Sources go in portions, and what another process logs between two of them keeps its source."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._PAGE_BYTES", 200_000)
    monkeypatch.setattr(pruner_module, "_CHUNKS_FOR_ROOM", 1)
    sources(log, 60)
    log.fill(150, source=3)
    pruner = log.pruner(max_rows=100)
    pruner.step(log.connection)
    assert [(50, 12)] == log.ask("SELECT count(*), (SELECT id FROM sources WHERE id > 3) FROM sources")
    log.fill(5, source=31)
    log.prune(pruner)

    assert [(3,), (31,), (60,)] == log.ask("SELECT id FROM sources ORDER BY id")


def test_gaps_in_place_stay_as_long_as_their_rows_do(log):
    """
    However much the gaps take, those whose place is in the file stay, and rows go for them: a log that shows rows
    as neighbours that are none is worse than a shorter one.
    """
    log.fill(2_000)
    for place in (500, 1_500):
        log.connection.executemany(
            "INSERT INTO drops VALUES (NULL, ?, 0, 0, 1, 'queue_full', printf('%060d', ?), 20, 1)",
            [(place, number) for number in range(6_000)],
        )
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pruner = log.pruner(max_bytes=1 << 20)
    log.prune(pruner)
    assert None is log.no_room(pruner)

    first, last, _ = log.rows
    assert 500 < first < 1_500
    assert 2_000 == last
    assert [(1_500, 6_000)] == log.ask("SELECT after_id, count(*) FROM drops WHERE after_id >= ? GROUP BY 1", first)
    assert 0 < log.ask("SELECT count(*) FROM drops WHERE after_id < ?", first)[0][0] <= 1_000


def test_short_lines_are_kept_by_their_number(log):
    """A log with usual names keeps as many lines as before when its rows have been replaced once."""
    log.connection.executemany(
        "INSERT INTO volume (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(2_000)]
    )
    pruner = log.pruner(max_bytes=2_000_000)
    for _ in range(20):
        log.fill(200, width=1_000)
        assert None is log.no_room(pruner)
        log.prune(pruner)

    assert log.rows[0] > 1_500
    assert [(1_000, 1_999)] == log.ask("SELECT min(hour), max(hour) FROM volume")


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_failure_is_said_once_when_it_lasts(log, said):
    """One failure is somebody who has the file locked; the second is said, later ones are not, and the end is."""
    log.fill(20)
    pruner = log.pruner(max_rows=10)
    for _ in range(5):
        assert 5.0 == pruner.failed(sqlite3.OperationalError("database is locked"))
        log.clock.advance(5)
    log.prune(pruner)

    assert 2 == len(said)
    assert said[0].startswith("cannot prune (OperationalError: database is locked)")
    assert "pruning again" == said[1]


def test_one_failure_is_not_said(log, said):
    """A single failure is tried again in silence."""
    pruner = log.pruner(max_rows=10)
    pruner.failed(sqlite3.OperationalError("database is locked"))
    log.clock.advance(5)
    log.prune(pruner)

    assert [] == said


def test_a_deletion_that_fails_leaves_all_as_it_was(log, monkeypatch):
    """When the line of `prunes` cannot be written, no row is deleted, and no transaction is left open."""
    monkeypatch.setattr(pruner_module, "_NOTE", "DELETE FROM nowhere")
    log.fill(20)
    with pytest.raises(sqlite3.OperationalError):
        log.pruner(max_rows=10).step(log.connection)

    assert (20, False) == (len(log.ids), log.connection.in_transaction)


# Who holds a snapshot -------------------------------------------------------------------------------------------------


LOCKS = """\
1: POSIX  ADVISORY  READ 101 fe:00:77 124 124
2: POSIX  ADVISORY  READ 102 fe:00:77 128 128
3: POSIX  ADVISORY  READ 103 fe:00:78 124 124
4: POSIX  ADVISORY  READ 104 fe:00:77 120 EOF
5: FLOCK  ADVISORY  WRITE 105 fe:00:77 0 EOF
6: -> POSIX  ADVISORY  WRITE 106 fe:00:77 123 123
7: POSIX  ADVISORY  READ 101 fe:00:77 125 126
"""


def test_readers_are_found_by_their_locks():
    """A process with a lock on one of the slots for readers in the -shm holds a snapshot; other locks tell nothing."""
    assert [101, 104] == reading_processes(iter(LOCKS.splitlines()), 77)


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="only Linux tells who has a lock")
def test_a_reader_is_named(log, reader):
    """Where the system tells, the process that holds the snapshot is named."""
    log.fill(1)
    reader()

    assert f" (process {os.getpid()}, which is this one)" == pruner_module._readers(log.path)
    assert "" == pruner_module._readers(log.path + "-not-there")


def test_a_look_costs_one_statement(log):
    """What a log takes is found out by one statement, because in a busy program each is a wait for the GIL."""
    log.fill(10, age=5)
    asked = []
    log.connection.set_trace_callback(lambda sql: None if sql.startswith("-- ") else asked.append(sql))
    state = look(log.connection, log.path)
    log.connection.set_trace_callback(None)

    assert 1 == len(asked)
    assert (1, 10, 10, round((NOW - 5) * 1e6)) == (state.first_id, state.last_id, state.rows, state.oldest_us)
    assert os.stat(log.path + "-wal").st_size == state.wal
