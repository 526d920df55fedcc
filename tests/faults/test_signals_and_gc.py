"""
Records that are logged in the middle of anything: by signal handlers, by collections, under reconfiguration.

Each runs in a process of its own; a deadlock ends it with the stacks of all threads.
"""

from __future__ import annotations

import signal
from collections import deque

import pytest


@pytest.fixture
def repeat(long):
    """Run something as often as was asked for."""
    return range(200 if long else 2)


def test_a_record_while_a_batch_is_copied(make_handler, logger, query, unattended):
    """
    A record that a signal handler or a `__del__` logs while a batch is copied disturbs neither the copy nor the caller.

    The mutex is reentrant, so the record is appended in between, and the iterator of the deque takes offence.
    """
    handler = make_handler()
    logger.addHandler(handler)
    for number in range(3):
        logger.info("%d", number)

    class Interrupted(deque):
        """A queue in which a signal arrives just before it is read."""

        def __iter__(self):
            iterator = super().__iter__()
            if len(self) == 3:
                logger.info("3")
            return iterator

    handler.queue.queue = Interrupted(handler.queue.queue)
    try:
        assert handler.flush()
        assert [(str(number),) for number in range(4)] == query("SELECT message FROM logs ORDER BY id")
    finally:
        handler.queue.queue = deque(list(handler.queue.queue))


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="this system has no signal masks")
def test_a_signal_that_the_program_blocks(run):
    """
    A signal that a program blocks after its first record waits until the program takes it.

    The listener's thread was started with all signals open, so the system gave it there, and that ended the process.
    """
    out = run(
        """
        import signal
        handler = SQLiteHandler(path, max_rows=10)
        logger.addHandler(handler)
        logger.info("starting")
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        os.kill(os.getpid(), signal.SIGTERM)
        print(signal.sigwait({signal.SIGTERM}) == signal.SIGTERM)
        """
    )
    assert ["True"] == out.split()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no setitimer on this system")
def test_signals_that_log(run, repeat):
    """
    A signal handler that logs every half millisecond, into a program that does nothing but log, never waits for it.
    """
    for _ in repeat:
        run(
            """
            handler = SQLiteHandler(path, capacity=500, flush_interval=0.001)
            logger.addHandler(handler)
            logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
            calls, inside = [0, 0], []
            def log(number, frame):
                # Where one takes longer than half a millisecond, signals would interrupt each other without end.
                if len(inside) == 3 or calls[0] >= 300: return
                calls[0] += 1
                inside.append(number)
                logger.warning("signal %d", calls[0])
                inside.pop()
            signal.signal(signal.SIGALRM, log)
            signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
            while calls[0] < 300:
                logger.info("main %d", calls[1])
                calls[1] += 1
                if calls[1] % 1000 == 0: handler.flush(); handler.stats()
            signal.setitimer(signal.ITIMER_REAL, 0)
            handler.close()
            stats = handler.stats()
            assert (sum(calls), 0) == (stats.seen, stats.queued), (calls, stats)
            assert stats.written + stats.dropped_total == stats.seen
            """
        )


def test_collections_that_log(run, repeat):
    """Objects whose `__del__` logs, collected at every allocation and on every thread, hold nobody up."""
    for _ in repeat:
        run(
            """
            handlers = [SQLiteHandler(f"{path}-{name}", capacity=500, flush_interval=0.001) for name in "ab"]
            for handler in handlers: logger.addHandler(handler)
            logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
            dead = []
            class Talks:
                def __init__(self): self.self = self
                def __del__(self):
                    dead.append(None)
                    logger.info("del 0")
            logged = []
            def work():
                for number in range(400):
                    Talks()
                    logger.info("work 0")
                    logged.append(None)
            threads = [threading.Thread(target=work) for _ in range(3)]
            gc.set_threshold(1)
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            gc.collect()
            gc.set_threshold(0)
            for handler in handlers:
                handler.close()
                stats = handler.stats()
                assert (len(logged) + len(dead), 0) == (stats.seen, stats.queued), (len(logged), len(dead), stats)
            """
        )


def test_two_handlers_in_opposite_orders(run, repeat):
    """
    A `__del__` that logs to one handler, run inside a call of the other, and the other way round, ends in no deadlock.
    """
    for _ in repeat:
        run(
            """
            handlers = [SQLiteHandler(f"{path}-{name}", flush_interval=0.001) for name in "ab"]
            logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
            # An error: what wakes the listener at once needs the mutex, with and without a GIL.
            record = logging.makeLogRecord({"msg": "x", "levelno": 40, "name": "x"})
            both = threading.Barrier(2)
            def cross(own, other):
                for _ in range(50):
                    with own.queue.mutex:
                        both.wait()
                        other.handle(record)
                        both.wait()
            for handler in handlers: handler.handle(record)
            _queue.MUTEX_TIMEOUT = 0.001  # now that its thread has started, which holds the mutex, too
            pairs = [(handlers[0], handlers[1]), (handlers[1], handlers[0])]
            threads = [threading.Thread(target=cross, args=pair) for pair in pairs]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            for handler in handlers:
                handler.close()
                assert (51, 0) == (handler.stats().seen, handler.stats().queued), handler.stats()
                assert {"contended": 50} == handler.stats().dropped_by_cause
            """
        )


def test_reconfiguration_under_load(run, repeat):
    """
    `dictConfig` in a loop, while threads overflow the queue and the warnings are logged, neither hangs nor loses count.

    Three busy threads make a thread that opens a file wait for the GIL some hundred times. With the usual 5 ms a
    turn, that may take so long that the wait for the file is said on stderr; with 0.5 ms there are more interleavings.
    """
    for number in repeat:
        run(
            """
            path += arguments[0]
            sys.setswitchinterval(0.0005)
            logging.lastResort = logging.NullHandler()  # in moments in which `dictConfig` has taken all handlers away
            known = []
            def config():
                logging.config.dictConfig({
                    "version": 1, "disable_existing_loggers": False,
                    "handlers": {
                        "db": {"class": "sqlite_log_handler.SQLiteHandler", "filename": path, "capacity": 20,
                               "flush_interval": 0.001},
                        "null": {"class": "logging.NullHandler"},
                    },
                    "root": {"handlers": ["db"], "level": "INFO"},
                    # The warning of one handler is an ordinary record for the next, and would be counted.
                    "loggers": {"sqlite_log_handler": {"handlers": ["null"], "propagate": False}},
                })
                known.append(logging.getLogger().handlers[0])
            config()
            stop = threading.Event()
            def work():
                while not stop.is_set(): logger.info("x 0")
            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads: thread.start()
            for _ in range(20): config()
            stop.set()
            for thread in threads: thread.join()
            logging.shutdown()
            for handler in known:
                handler.close()
                stats = handler.stats()
                assert (0, stats.seen) == (stats.queued, stats.written + stats.dropped_total)
            with contextlib.closing(sqlite3.connect(path)) as connection:
                assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
                ((stored,),) = connection.execute("SELECT count(*) FROM logs WHERE logger = 'program'").fetchall()
                ((lost,),) = connection.execute("SELECT coalesce(sum(count), 0) FROM drops").fetchall()
            books = [handler.stats() for handler in known]
            expected = sum(stats.written for stats in books), sum(stats.dropped_total for stats in books)
            assert expected == (stored, lost), (expected, stored, lost)
            """,
            number,
        )
