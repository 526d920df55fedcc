"""
The tables beside the rows: what outlives the rows, and what goes so that rows can stay.
"""

from __future__ import annotations

import os
import sqlite3

import pytest

from sqlite_log_handler._write.retention import side_tables
from sqlite_log_handler._write.retention.pruner import look
from sqlite_log_handler._write.writer import Writer


@pytest.fixture
def few_lines(monkeypatch):
    """Keep 10 lines only."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits._LINES", (10, 10))
    monkeypatch.setattr(side_tables, "_ROWS_PER_LINE", 1)


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
        "INSERT INTO volume_folded (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(99)]
    )
    log.fill(100)
    log.prune(log.pruner(max_rows=50))

    assert list(range(89, 99)) == [line for (line,) in log.ask("SELECT hour FROM volume ORDER BY hour")]


def test_volume_is_cut_by_its_bytes_too(log):
    """With `max_bytes`, the lines of `volume` are cut to a 32nd of it, also when rows go because of another limit."""
    names = [(f"{n:01000d}",) for n in range(500)]
    log.connection.executemany("INSERT INTO volume_folded (hour, logger, levelno) VALUES (1, ?, 20)", names)
    log.fill(20)
    log.prune(log.pruner(max_rows=10, max_bytes=2_000_000))

    assert 0 < log.ask("SELECT sum(length(logger) + 50) FROM volume_folded")[0][0] <= 2_000_000 // 32


def test_lines_are_cut_though_one_chunk_was_enough(log, few_lines):
    """A chunk of large rows may free more than it was to; what is beside the rows is cut after it as well."""
    log.connection.executemany(
        "INSERT INTO volume_folded (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(99)]
    )
    log.fill(3, width=300_000)
    log.fill(5_000, width=100)
    log.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    log.pruner(max_bytes=1_500_000).step(log.connection)

    assert 1 < log.rows[0] < 100
    assert [(10,)] == log.ask("SELECT count(*) FROM volume")


def hours(log, count: int) -> None:
    """Fill `volume` with a line for each hour."""
    log.connection.executemany(
        "INSERT INTO volume_folded (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(count)]
    )


def refuse(log, hour: int) -> None:
    """Let the deletion of a line of `volume` fail."""
    log.connection.execute(
        f"CREATE TEMP TRIGGER refuse AFTER DELETE ON main.volume_folded WHEN old.hour = {hour} "
        "BEGIN SELECT RAISE(ABORT, 'injected'); END"
    )


def test_a_cut_takes_some_lines_in_each_step(log, few_lines):
    """
    A cut leaves the lock to commits after some 16,000 lines.

    The first limit of a log of years cut 1.2 million lines in one step, which held up commits for seconds.
    """
    hours(log, 40_000)
    log.fill(100)
    pruner = log.pruner(max_rows=25)

    cut = [(pruner.step(log.connection), *log.ask("SELECT count(*) FROM volume")[0]) for _ in range(3)]
    assert [(0, 23_616), (0, 7_232), (None, 10)] == cut


def test_a_cut_that_fails_goes_on_with_the_next_step(log, few_lines):
    """It was begun anew after ten times as many deleted rows as lines are kept, a million by default."""
    hours(log, 4_000)
    log.fill(100)
    pruner = log.pruner(max_rows=50)
    refuse(log, hour=2_000)
    with pytest.raises(sqlite3.IntegrityError, match="injected") as raised:
        pruner.step(log.connection)
    pruner.failed(raised.value)
    assert [(2_976,)] == log.ask("SELECT count(*) FROM volume")
    log.connection.execute("DROP TRIGGER refuse")
    log.prune(pruner)

    assert [(10,)] == log.ask("SELECT count(*) FROM volume")


def test_rows_go_although_a_cut_fails(log):
    """A value that somebody has put into a table beside the rows, so that it cannot be cut, costs one commit."""
    log.fill(2_000, width=200)
    hours(log, 50_000)
    refuse(log, hour=0)
    pruner = log.pruner(max_bytes=1 << 20)
    with pytest.raises(sqlite3.IntegrityError, match="injected"):
        pruner.make_room(log.connection)
    assert None is log.no_room(pruner)
    assert (True, 50_000) == (log.rows[0] > 1, log.ask("SELECT count(*) FROM volume")[0][0])

    log.connection.execute("DROP TRIGGER refuse")
    assert 0 == pruner.step(log.connection)
    assert [(49_744,)] == log.ask("SELECT count(*) FROM volume")


def test_lines_are_cut_in_pieces_before_rows_go(log):
    """
    Where the tables beside the rows take too much, each step cuts some of their lines, and no row before they are cut.

    The lock was held for seconds there too.
    """
    log.fill(200)
    hours(log, 80_000)
    pruner, left = log.pruner(max_bytes=1 << 20), []
    for _ in range(3):
        assert 0 == pruner.step(log.connection)
        left += log.ask("SELECT (SELECT count(*) FROM volume), (SELECT count(*) FROM records)")

    assert [(78_720, 200), (77_440, 200), (76_160, 200)] == left


def test_many_lines_go_in_few_statements(log, few_lines):
    """Each statement is a wait for the GIL, and lines that go are not read: 600,000 of them took 80 MB."""
    log.connection.executemany(
        "INSERT INTO volume_folded (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(20_000)]
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
    for _ in range(100):
        log.fill(40, width=1_000)
        assert None is log.no_room(pruner)
        log.prune(pruner)

    assert log.rows[0] > 1_500
    assert not [statement for statement in statements if "DISTINCT" in statement]


def test_a_log_within_its_limits_keeps_all_lines(log, few_lines):
    """Where no row goes, nothing beside the rows goes either."""
    log.connection.executemany(
        "INSERT INTO volume_folded (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(99)]
    )
    log.fill(50)
    log.prune(log.pruner(max_rows=50))

    assert [(99,)] == log.ask("SELECT count(*) FROM volume")


def test_totals_outlive_the_lines_of_volume(log, few_lines):
    """
    What is cut off `volume` is kept in `record_totals`, by level, so the total of a level never falls.

    A counter that falls is a restart to a monitoring system, which then counts everything again.
    """
    lines = [(n, f"app.{n % 3}", 20 + 10 * (n % 2), n, 2 * n) for n in range(500)]
    log.connection.executemany(
        "INSERT INTO volume_folded (hour, logger, levelno, records, bytes) VALUES (?, ?, ?, ?, ?)", lines
    )
    log.fill(50)
    both = "SELECT levelno, records, bytes FROM volume UNION ALL SELECT levelno, records, bytes FROM record_totals"
    totals = f"SELECT levelno, sum(records), sum(bytes) FROM ({both}) GROUP BY 1 ORDER BY 1"
    before = log.ask(totals)
    log.prune(log.pruner(max_rows=1))

    assert 100 > log.ask("SELECT count(*) FROM volume_folded")[0][0]
    assert before == log.ask(totals)


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


def sources(log, count: int) -> None:
    """Make sources 2, 3, ..."""
    log.connection.executemany(
        "INSERT INTO sources VALUES (?, ?, '/app.py', 1, 'main', '')", [(n, f"app.{n}") for n in range(2, count + 1)]
    )


def test_sources_go_when_no_row_is_of_them(log, few_lines):
    """
    Lines that no row is of any more go, but the last one of each table, so that no id is given again.

    Processes and levels that a gap is of stay too.
    """
    sources(log, 60)
    log.connection.executemany("INSERT INTO processes VALUES (?, 'host', ?, '', 0, '')", [(n, n) for n in range(2, 60)])
    log.connection.executemany("INSERT INTO threads VALUES (?, ?, 'worker')", [(n, n) for n in range(1, 60)])
    log.fill(100, source=3)
    log.fill(50, source=40)
    log.connection.execute("UPDATE records SET thread_id = CASE WHEN id > 100 THEN 8 ELSE 9 END WHERE id != 150")
    log.connection.execute("INSERT INTO drops VALUES (NULL, 149, 0, 0, 7, 'queue_full', 'app', 35, 1)")
    log.connection.executemany("INSERT INTO levels VALUES (?, 'mine')", [(n,) for n in range(31, 38)])
    pruner = log.pruner(max_rows=50)
    log.prune(pruner)

    assert [(40,), (60,)] == log.ask("SELECT id FROM sources ORDER BY id")
    assert [(1,), (7,), (59,)] == log.ask("SELECT id FROM processes ORDER BY id")
    assert [(8,), (59,)] == log.ask("SELECT id FROM threads ORDER BY id")
    assert [(10,), (20,), (30,), (35,), (40,), (50,)] == log.ask("SELECT levelno FROM levels ORDER BY 1")
    assert log.ask("SELECT sweeps FROM marks")[0][0]


def test_a_sweep_deletes_some_lines_in_each_step(log, few_lines):
    """
    A sweep leaves the lock to commits after a thousand lines.

    It deleted 65,000 in one step, for a second, or for four beside very many gaps. So rows were dropped meanwhile.
    """
    log.fill(100)
    sources(log, 3_001)
    pruner, left = log.pruner(max_rows=25), []
    for _ in range(3):
        pruner.step(log.connection)
        left += log.ask("SELECT count(*) FROM sources")

    assert [(1_977,), (953,), (2,)] == left


def test_a_sweep_goes_over_a_hole_in_one_step(log, few_lines):
    """
    A sweep looks at the rows that are there, not at each id.

    Where a bit had flipped in the id of the newest row, or a stranger had chosen it, `sqlite-log prune` did not end.
    """
    log.fill(40, age=100, step=5)
    log.connection.executemany("INSERT INTO sources VALUES (?, ?, '', 0, '', '')", [(n, n) for n in range(2, 30)])
    log.connection.execute("UPDATE records SET id = 1 << 60 WHERE id = 40")
    log.prune(log.pruner(max_age=50))

    assert [(1,), (29,)] == log.ask("SELECT id FROM sources")


def test_few_sources_are_not_looked_for(log, few_lines):
    """As long as there are few sources, or most were in use when last looked at, the rows are not read for them."""
    sources(log, 10)
    log.fill(100)
    pruner = log.pruner(max_rows=50)
    log.prune(pruner)

    assert (10, 0) == (log.ask("SELECT count(*) FROM sources")[0][0], log.ask("SELECT sweeps FROM marks")[0][0])


def test_a_source_that_comes_while_rows_are_looked_through_stays(log, few_lines, monkeypatch):
    """Rows are looked through in slices, and what is logged meanwhile keeps its source."""
    monkeypatch.setattr(side_tables, "_SWEEP_ROWS", 10)
    sources(log, 60)
    log.fill(150, source=3)
    pruner = log.pruner(max_rows=100)
    pruner.step(log.connection)
    for _ in range(5):
        assert 0 == pruner.step(log.connection)
        assert not log.ask("SELECT sweeps FROM marks")[0][0]
    log.fill(5, source=31)
    log.fill(3, source=30)
    log.prune(pruner)

    assert [(3,), (30,), (31,), (60,)] == log.ask("SELECT id FROM sources ORDER BY id")


def test_a_sweep_ends_though_the_tables_are_cut_meanwhile(log, few_lines, monkeypatch):
    """A cut that comes before the sweep of an earlier one has ended lets it go on: begun anew, it would never end."""
    monkeypatch.setattr(side_tables, "_SWEEP_ROWS", 50)
    sources(log, 60)
    log.fill(99)
    pruner = log.pruner(max_rows=99)
    for _ in range(8):
        log.fill(10)
        pruner.step(log.connection)

    assert [(1,), (60,)] == log.ask("SELECT id FROM sources")


def test_a_sweep_for_long_names_ends_though_they_are_counted_again(log, monkeypatch):
    """So it is with a sweep that has begun because of the bytes that the names take."""
    monkeypatch.setattr(side_tables, "_SWEEP_ROWS", 50)
    names = [(n, f"{n:01000d}") for n in range(2, 61)]
    log.connection.executemany("INSERT INTO sources VALUES (?, ?, '/app.py', 1, 'main', '')", names)
    log.fill(99)
    tables = log.pruner(max_bytes=1 << 20).tables
    for _ in range(2):
        assert tables.trim_all(log.connection)

    assert [(1,), (60,)] == log.ask("SELECT id FROM sources")


def test_what_was_found_in_use_in_another_file_is_forgotten(log, few_lines, monkeypatch, tmp_path):
    """
    When a file comes in place of the one whose rows are looked through, its own rows tell which sources are in use.

    Its sources were deleted, and then the view `logs` has nothing of the rows that are of them.
    """
    monkeypatch.setattr(side_tables, "_SWEEP_ROWS", 10)
    sources(log, 60)
    log.fill(150, source=40)
    pruner = log.pruner(max_rows=100)
    pruner.step(log.connection)
    assert 0 == pruner.step(log.connection)
    log.writer.close()
    log.path = str(tmp_path / "open.db")
    log.writer = Writer(log.path, busy_timeout=0)
    log.writer.file.open()
    log.connection = log.writer.file.connection
    log.connection.execute("INSERT INTO processes VALUES (1, 'host', 1, 'MainProcess', 0, 'app')")
    sources(log, 60)
    log.fill(5, source=3)

    pruner.opened(log.path)
    log.prune(pruner)

    assert [(5,)] == log.ask("SELECT count(*) FROM logs")
    assert [(3,), (60,)] == log.ask("SELECT id FROM sources ORDER BY id")


def overflow(log, start: int, count: int, width: int = 60) -> None:
    """Log a row of each of `count` loggers with names of `width` letters; half of them also drop one."""
    numbers = range(start, start + count)
    names = [f"{number:0{width}}" for number in numbers]
    log.connection.execute("BEGIN")
    log.connection.executemany(
        "INSERT INTO sources VALUES (?, ?, '/app.py', 1, 'main', '')", zip(numbers, names, strict=True)
    )
    log.connection.executemany(
        "INSERT INTO volume_folded (hour, logger, levelno) VALUES (1, ?, 20)", [(n,) for n in names]
    )
    log.connection.executemany(
        "INSERT INTO records (created_us, levelno, source_id, process_id, message) VALUES (0, 20, ?, 1, 'opened')",
        [(n,) for n in numbers],
    )
    log.connection.executemany(
        "INSERT INTO drops SELECT NULL, max(id), 0, 0, 1, 'queue_full', ?, 20, 1 FROM records",
        [(n,) for n in names[::2]],
    )
    log.connection.execute("COMMIT")


@pytest.mark.slow
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


def without_rows(log, count: int, width: int) -> None:
    """Take the place of all rows, as such a program once did."""
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
    for table in ("drops", "volume_folded"):
        assert 0 < log.ask(f"SELECT count(*) * {width} FROM {table}")[0][0] <= 65_536
    assert log.ask("SELECT sweeps FROM marks")[0][0]


@pytest.mark.parametrize(
    ("table", "values"),
    [("processes", "'h', :id, :name, 0, ''"), ("threads", ":id, :name"), ("levels", ":name")],
)
def test_few_lines_with_long_names_go_too(log, table, values):
    """
    Lines of each table that rows refer to count by their bytes, and go when no row refers to them.

    The names of 96 processes of others, of 4 kB each, took all that a log of 1 MiB has, and those of 746 levels did.
    They were too few lines for a sweep, or were in none, and each later record was dropped.
    """
    lines = [{"id": number, "name": "\U0001f600" * 1_000} for number in range(100, 400)]
    log.connection.executemany(f"INSERT INTO {table} VALUES (:id, {values})", lines)
    assert look(log.connection, log.path).live > 1 << 20
    pruner = log.pruner(max_bytes=1 << 20)

    assert None is log.no_room(pruner)
    log.prune(pruner)
    assert look(log.connection, log.path).live < 1 << 19
    assert [(10,), (20,), (30,), (40,), (50,)] == log.ask("SELECT levelno FROM levels WHERE levelno < 100")
    assert log.ask("SELECT count(*) FROM logs") == log.ask("SELECT count(*) FROM records")


def test_cutting_lines_stops_at_a_reader_too(log, reader):
    """What goes from the tables beside the rows writes to the WAL as rows do: not beside a reader who stays."""
    without_rows(log, 4_000, 60)
    pruner = log.pruner(max_bytes=1 << 20)
    held = reader()

    with pytest.raises(BlockingIOError):
        pruner.make_room(log.connection)
    assert 65_536 < os.stat(log.path + "-wal").st_size < 140_000
    # The oldest have gone.
    first, last, count = log.ask("SELECT min(id), max(id), count(*) FROM drops")[0]
    assert (2_000, 2_001 - first) == (last, count)
    assert 1 < first < 1_000

    held.close()
    log.clock.advance(1)
    assert None is log.no_room(pruner)


def test_a_source_that_comes_while_others_are_deleted_stays(log, few_lines, monkeypatch):
    """Sources go in portions, and what another process logs between two of them keeps its source."""
    monkeypatch.setattr("sqlite_log_handler._write.retention.limits.PAGE_BYTES", 200_000)
    monkeypatch.setattr(side_tables, "_SWEEP_LINES", 1)
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
        "INSERT INTO volume_folded (hour, logger, levelno) VALUES (?, 'app', 20)", [(n,) for n in range(2_000)]
    )
    pruner = log.pruner(max_bytes=2_000_000)
    for _ in range(100):
        log.fill(40, width=1_000)
        assert None is log.no_room(pruner)
        log.prune(pruner)

    assert log.rows[0] > 1_500
    assert [(1_000, 1_999)] == log.ask("SELECT min(hour), max(hour) FROM volume")
