"""
A handler whose queue is full: what it refuses, and where it counts that.
"""

from __future__ import annotations

import gc
import logging
import logging.config
import logging.handlers
import time
import tracemalloc

from records import messages

from sqlite_log_handler._logfile.schema import OWN_LOGGER
from sqlite_log_handler._write.drop_report import MARK


class Unformatted:
    """An argument that must not be looked at."""

    formatted = 0

    def __str__(self):
        Unformatted.formatted += 1
        return "x"


def test_refused_before_it_is_formatted(make_handler, logger, lock, monkeypatch):
    """A record that finds the queue full is counted and forgotten; its message is never built."""
    monkeypatch.setattr(Unformatted, "formatted", 0)
    handler = make_handler(capacity=3, reserve=0, fair_share=1, close_timeout=0)
    logger.addHandler(handler)
    lock()
    for _ in range(10):
        logger.info("%s", Unformatted())

    assert 3 == Unformatted.formatted
    assert {"queue_full": 7} == handler.stats().dropped_by_cause
    lock()


def test_overflow_is_counted_everywhere(make_handler, logger, lock, query, clock, logging_tree, unattended):
    """Under a locked database: one warning per tick with drops, and books, warnings, ledger and volume agree."""
    warned = []

    class Console(logging.Handler):
        def emit(self, record):
            warned.append(record.dropped)

    logging.getLogger(OWN_LOGGER).addHandler(Console())
    logging.getLogger(OWN_LOGGER).propagate = False
    handler = make_handler(capacity=100, reserve=0.1, fair_share=1)
    handler.listener.committer.now = clock
    logger.addHandler(handler)
    lock()
    for _ in range(4):
        for number in range(50):
            logger.info("%d", number)
        logger.warning("important")
        clock.advance(handler.listener.committer.flush_interval)
        handler.listener.handle(None)
    lock()
    assert handler.flush()

    stats = handler.stats()
    assert [11, 50, 50] == warned
    assert (204, 93, 111, 0) == (stats.seen, stats.written, stats.dropped_total, stats.queued)
    assert (111, {"queue_full": 111}, {"INFO": 111}, {logger.name: 111}) == (
        handler.dropped_total,
        stats.dropped_by_cause,
        stats.dropped_by_level,
        stats.dropped_by_logger,
    )
    assert [(111,)] == query("SELECT sum(count) FROM drops")
    assert [(111, 93)] == query("SELECT sum(dropped), sum(records) FROM volume WHERE logger = ?", logger.name)
    own = "SELECT json_extract(attributes, '$.dropped') FROM logs WHERE logger = 'sqlite_log_handler' ORDER BY id"
    assert [(11,), (50,), (50,)] == query(own)
    assert [(stats.written,)] == query("SELECT count(*) FROM logs WHERE logger = ?", logger.name)


def test_the_gap_stands_where_it_is(make_handler, logger, lock, query, unattended):
    """
    A reader of the log in order finds the warning between the last row before the drops and the first after them.
    """
    logging.getLogger(OWN_LOGGER).propagate = False
    handler = make_handler(capacity=3, reserve=0, fair_share=1)
    logger.addHandler(handler)
    lock()
    for number in range(5):
        logger.info("%d", number)
    handler.listener.handle(None)
    lock()
    handler.flush()
    logger.info("after")
    handler.flush()
    logging.getLogger(OWN_LOGGER).propagate = True

    rows = query("SELECT id, logger, message FROM logs ORDER BY id")
    assert ["0", "1", "2", "dropped 2 records", "after"] == [message[:17] for _, _, message in rows]
    assert [(rows[2][0],)] == query("SELECT after_id FROM drops")


def test_the_reserve_is_for_warnings(make_handler, logger, lock, query):
    """When INFO has filled its share, WARNING and above still get in."""
    handler = make_handler(capacity=10, reserve=0.2, fair_share=1)
    logger.addHandler(handler)
    lock()
    for _ in range(20):
        logger.info("chatter")
    logger.error("this matters")
    lock()
    handler.flush()

    assert "this matters" in messages(query)
    assert 12 == handler.dropped_total


def test_own_warnings_do_not_feed_themselves(make_handler, lock, query, logging_tree, unattended):
    """The warning of a handler on the root logger reaches that handler too, which ignores it: no drop for a drop."""
    handler = make_handler(capacity=1, reserve=0)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.INFO)
    lock()
    for _ in range(3):
        logging.getLogger().info("x")
    for _ in range(5):
        handler.listener.handle(None)
    assert 2 == handler.dropped_total
    lock()
    handler.flush()

    assert [(1,)] == query("SELECT count(*) FROM logs WHERE logger = 'sqlite_log_handler'")


def test_warnings_of_another_handler_are_records(
    make_handler, tmp_path, path, logger, lock, query, logging_tree, unattended
):
    """Two handlers on one logger: the drops of one are an ordinary record for the other."""
    other = make_handler(tmp_path / "other.db")
    handler = make_handler(capacity=1, reserve=0)
    logger.addHandler(handler)
    logging.getLogger(OWN_LOGGER).addHandler(other)
    lock()
    for _ in range(3):
        logger.info("x")
    handler.listener.handle(None)
    lock()
    handler.listener.committer.drop_report.wait(60)

    assert 1 == other.stats().seen


def test_handlers_that_have_no_room_do_not_feed_each_other(
    make_handler, tmp_path, path, logger, monkeypatch, clock, logging_tree, unattended, warnings
):
    """
    Two handlers without room drop each other's warnings, count them, and stop there: they warn again when more is lost.

    In an outage two full queues went on for ever: ten warnings a second of each came to the console, with nothing
    logged, and each was one more drop.
    """
    handlers = [make_handler(path, capacity=1, reserve=0), make_handler(tmp_path / "other.db", capacity=1, reserve=0)]
    for handler in handlers:
        handler.listener.committer.now, handler.listener.committer._sleep = clock, clock.advance
        logger.addHandler(handler)
        logging.getLogger(OWN_LOGGER).addHandler(handler)

    def fails(*_, **__):
        raise OSError("disk")

    def lose(records):
        for _ in range(records):
            logger.info("x")
        for handler in handlers * 5:
            clock.advance(1)
            handler.listener.committer.tick(clock())
            handler.listener.committer.drop_report.wait(60)
        return [record.dropped for record in warnings]

    with monkeypatch.context() as patch:
        for handler in handlers:
            patch.setattr(handler.listener.committer.writer, "write", fails)
        assert [2, 3] == lose(3)
        assert [2, 3, 2, 2] == lose(1)
    for handler in handlers:
        handler.close()
        told = [record.dropped for record in warnings if vars(record)[MARK] == id(handler.queue)]
        assert handler.dropped_total == sum(told)


def test_a_bounded_number_of_bytes(make_handler, logger, lock):
    """Records of 260 kB stay within `capacity_bytes`, in the books and in the memory of the process."""
    handler = make_handler(capacity_bytes=4 * 1024 * 1024, max_record_bytes=256 * 1024, fair_share=1, close_timeout=0)
    logger.addHandler(handler)
    logger.info("started")
    handler.flush()
    lock()
    tracemalloc.start()
    try:
        for number in range(200):
            logger.info("%d %s", number, "x" * 260_000)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    stats = handler.stats()
    lock()

    assert stats.queued_bytes <= 4 * 1024 * 1024
    assert used <= 4.2 * 1024 * 1024
    assert stats.dropped_total == 201 - stats.written - stats.queued > 0
    assert {"bytes_full"} == set(stats.dropped_by_cause)


def test_a_filter_that_raises_costs_no_look_at_the_queue(make_handler, logger, monkeypatch):
    """
    A record whose filter raises is queued without a look at what is queued already.

    A filter that reads an attribute which some records lack made each of them scan the whole queue under its mutex: 9
    to 14 ms a call for all threads, with 90,000 queued.
    """
    handler = make_handler(flush_interval=3600)
    logger.addHandler(handler)
    monkeypatch.setattr(handler.queue, "holds", lambda row: 1 / 0)

    def fails(record):
        raise AttributeError

    handler.addFilter(fails)
    for _ in range(3):
        logger.info("x")

    assert (3, 3) == (handler.stats().queued, handler.stats().malformed)


def test_the_age_of_the_oldest_queued_record(make_handler, logger, unattended, monkeypatch):
    """`oldest_queued_age` grows while a record waits, and is None when none does, also where `time.time` is a mock."""
    handler = make_handler()
    logger.addHandler(handler)
    assert None is handler.stats().oldest_queued_age
    record = logger.makeRecord("a", 20, "file.py", 1, "x", (), None)
    record.created = time.time() - 60
    logger.handle(record)
    logger.info("younger")
    monkeypatch.setattr(time, "time", object)
    age = handler.stats().oldest_queued_age
    assert age is not None
    assert age >= 60
    handler.flush()

    assert None is handler.stats().oldest_queued_age


def test_a_level_whose_name_is_an_object(make_handler, logger, query, monkeypatch, unattended):
    """
    A level may have an object as its name, and nothing asks that what it is called.

    Its `__str__` ran on the thread that commits. When it raised, the tick made no commit, and the drops that were to be
    reported were in no warning, and in no ledger in the file.
    """

    class Name:
        def __str__(self):
            raise ValueError

    class Text(str):
        __slots__ = ()
        __str__ = __format__ = Name.__str__

    monkeypatch.setattr(logging, "_levelToName", {**logging._levelToName, 33: Name(), 34: Text("text")})
    handler = make_handler(capacity=2, reserve=0, fair_share=1)
    logger.addHandler(handler)
    for levelno in (33, 34, 33, 34):
        logger.log(levelno, "x")
    assert {"Level 33": 1, "text": 1} == handler.stats().dropped_by_level
    handler.close()

    assert [(33, "Level 33"), (34, "text")] == query("SELECT levelno, level FROM logs WHERE message = 'x' ORDER BY id")
    assert [(2,)] == query("SELECT sum(count) FROM drops")


def test_a_report_that_fails_is_written_all_the_same(make_handler, logger, query, monkeypatch, unattended):
    """When there is no memory for the text of a warning, rows and ledger are written, with a warning that is short."""
    handler = make_handler(capacity=2, reserve=0, fair_share=1)
    logger.addHandler(handler)
    for _ in range(5):
        logger.info("x")
    monkeypatch.setattr(handler.listener.committer.drop_report, "_describe", lambda *_: bytearray(1 << 62))
    handler.close()

    assert [("x",), ("x",), ("dropped 3 records",)] == query("SELECT message FROM logs ORDER BY id")
    assert [(3, "sqlite_log_handler", 3)] == query(
        "SELECT (SELECT sum(count) FROM drops), logger, attributes ->> 'dropped_total' FROM logs WHERE id = 3"
    )
