"""
Whatever a program logs: one row each, or counted; nothing of the program's is called or kept by the listener.
"""

from __future__ import annotations

import gc
import json
import logging
import threading
import weakref

import pytest

from sqlite_log_handler._write.operator import Operator

TEXTS = {
    "empty": "",
    "nul": "a\0b",
    "surrogates": "\ud800 \udfff \udc80",
    "c0": "".join(map(chr, range(32))),
    "c1": "".join(map(chr, range(127, 160))),
    "terminal": "\x1b[2J\x1b]0;title\x07\x9b31m",
    "bidi": "\u202eabc\u202c \u2066def\u2069 \u200f\u200e",
    "newlines": "a\nb\rc\u2028d\u2029e\x85f",
    "formats": "%s %d %(x)s %n {0} {x!r} $x ${x} %%",
    "sql": "'; DROP TABLE records; --\" ` [x] ?1 :a @b $c",
    "noncharacters": "\ufffe \uffff \U0010ffff",
    "combining": "Z" + "\u0351" * 1_000,
    "long": "x" * 10_000_000,
    "long and wide": "\U0001f600" * 2_500_000,
}


class Subclass(str):
    """A text that remembers the threads that touched it."""

    __slots__ = ("__weakref__",)
    threads: set[int] = set()  # noqa: RUF012 - shared on purpose

    def touched(self, *arguments):
        Subclass.threads.add(threading.get_ident())

    __conform__ = touched

    def __str__(self):
        self.touched()
        return str.__str__(self)


def raising(error):
    """Make an object all of whose ways to be shown raise."""

    class Raises:
        def __str__(self):
            raise error

        __repr__ = __format__ = __int__ = __float__ = __index__ = __str__  # type: ignore[assignment]

    return Raises()


def objects(logger):
    """Make the objects, by name."""

    class Logs:
        def __str__(self):
            logger.info("inner")
            return "outer"

    class Mutates:
        def __str__(self):
            for record in list(logger.handlers[0].queue.queue):
                assert isinstance(record, tuple)
            logger.handlers[0].setLevel(5)
            logger.handlers[0].setLevel(0)
            return "mutated"

    class GivesASubclass:
        def __str__(self):
            return Subclass("from str")

    class GivesNoText:
        def __str__(self):
            return 3  # type: ignore[return-value]  # noqa: PLE0307

    class Recurses:
        def __str__(self):
            return str(self)

        __repr__ = __str__

    circular: list[object] = []
    circular.append(circular)
    deep: list[object] = []
    for _ in range(5_000):
        deep = [deep]
    return {
        "raises": raising(ValueError("no")),
        "raises memory": raising(MemoryError()),
        "raises stop": raising(StopIteration()),
        "logs": Logs(),
        "mutates": Mutates(),
        "subclass": Subclass("x"),
        "gives a subclass": GivesASubclass(),
        "gives no text": GivesNoText(),
        "recurses": Recurses(),
        "circular": circular,
        "deep": deep,
        "huge int": 10**4_000,
        "nan": float("nan"),
        "bytes": b"\xff\0",
        "set": {1, 2},
        "class": Subclass,
    }


@pytest.mark.parametrize("text", TEXTS)
def test_texts(make_handler, logger, query, text):
    """Any text is a row, as message, argument, name and attribute; it is plain, and JSON where JSON is promised."""
    handler = make_handler()
    logger.addHandler(handler)
    hostile = TEXTS[text]
    logger.info(hostile)
    logger.info("%s", hostile)
    logger.info("x", extra={"key": hostile, f"k{hostile[:100]}": 1})
    handler.handle(logging.LogRecord(hostile, 20, hostile, 1, hostile, (), None, hostile, hostile))
    handler.flush()

    rows = query("SELECT logger, message, func, attributes FROM logs ORDER BY id")
    assert (4, 4) == (len(rows), handler.stats().written)
    for row in rows:
        assert not any("\0" in field for field in row if field is not None)
        assert row[3] is None or isinstance(json.loads(row[3]), dict)
    ((length,),) = query("SELECT max(length(message)) FROM logs")
    assert length <= handler.max_record_bytes


NAMES = list(objects(logging.getLogger("none")))


@pytest.mark.parametrize("name", NAMES)
def test_objects(make_handler, logger, query, name):
    """An object that does whatever it likes when it is shown costs its own record at most."""
    Subclass.threads.clear()
    handler = make_handler(flush_interval=0.001)
    logger.addHandler(handler)
    hostile = objects(logger)[name]
    logger.info("%s", hostile)
    logger.info("%d %f", hostile, hostile)
    logger.info(hostile)
    logger.info("x", extra={"key": hostile, "nested": {"list": [hostile]}})
    logger.info("last")
    assert handler.flush()

    stats = handler.stats()
    inner = sum(text == "inner" for (text,) in query("SELECT message FROM logs"))
    assert (5 + inner, 0) == (stats.written, stats.dropped_total)
    assert [(5 + inner,)] == query("SELECT count(*) FROM logs")
    assert {threading.get_ident()} >= Subclass.threads


def test_what_waits_is_plain(make_handler, logger, unattended):
    """
    A row on the queue is made of exact, plain types, whatever the record was made of.

    `"%s" % x` gives what `x.__str__` returned, and that may be an instance of a subclass of str: with its
    `__conform__`, sqlite3 would call the program's code on the listener's thread.
    """
    handler = make_handler()
    logger.addHandler(handler)
    for hostile in objects(logger).values():
        for _ in range(2):
            logger.info("%s", hostile, extra={"key": hostile})
            logger.info(hostile)
    text = Subclass("name")
    for _ in range(2):
        handler.handle(logging.LogRecord(text, 20, text, 1, text, (text,), None, text, text))

    def flat(value):
        return [part for item in value for part in flat(item)] if type(value) is tuple else [value]

    assert {str, int, float, type(None)} >= {type(part) for row in handler.queue.queue for part in flat(row)}
    handler.flush()


def test_a_refused_record_calls_nothing_under_the_mutex(make_handler, logger, unattended):
    """What a logger's name of the program's own kind does when it is hashed or compared is not done under the mutex."""
    handler = make_handler(capacity=1, reserve=0, fair_share=1)
    held = []

    class Name(str):
        __slots__ = ()

        def __hash__(self):
            held.append(handler.queue.mutex._is_owned())
            return str.__hash__(self)

        def __eq__(self, other):
            held.append(handler.queue.mutex._is_owned())
            return str.__eq__(self, other)

    for _ in range(3):
        handler.handle(logging.LogRecord(Name("name"), 20, "file.py", 1, "x", (), None))

    assert (2, True) == (handler.dropped_total, True not in held)
    assert {str} == {type(name) for name in handler.stats().dropped_by_logger}


def test_nothing_is_kept_alive(make_handler, logger, unattended):
    """While a record waits, what it was made of can go: arguments, exceptions with their frames, and `extra`."""
    handler = make_handler()
    logger.addHandler(handler)

    class Thing:
        pass

    def log():
        thing = Thing()
        try:
            raise ValueError(thing)
        except ValueError:
            logger.exception("%s", thing, extra={"thing": thing})
        return weakref.ref(thing)

    things = [log() for _ in range(3)]
    gc.collect()

    assert ([None] * 3, 3) == ([thing() for thing in things], handler.stats().queued)
    handler.flush()


def test_an_object_that_blocks_blocks_its_own_thread(make_handler, logger, query):
    """An argument whose `__str__` blocks holds up the call it is in, and no other call, commit or close."""
    handler = make_handler()
    logger.addHandler(handler)
    inside, leave = threading.Event(), threading.Event()

    class Blocks:
        def __str__(self):
            inside.set()
            leave.wait()
            return "blocked"

    thread = threading.Thread(target=logger.info, args=("%s", Blocks()))
    thread.start()
    inside.wait()
    logger.info("meanwhile")
    assert handler.flush()
    handler.close()
    assert [("meanwhile",)] == query("SELECT message FROM logs")
    leave.set()
    thread.join()
    assert handler.flush()

    assert [("meanwhile",), ("blocked",)] == query("SELECT message FROM logs ORDER BY id")


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_object_that_exits(make_handler, logger, query, error):
    """An argument that exits does exit, and its record is a row all the same."""
    handler = make_handler()
    logger.addHandler(handler)
    with pytest.raises(error):
        logger.info("%s", raising(error()))
    handler.flush()

    assert [(f"<record not kept: {error.__name__}>",)] == query("SELECT message FROM logs")


@pytest.mark.parametrize("text", TEXTS)
def test_lines_for_the_terminal_are_safe(capsys, text):
    """What goes to stderr is one line that moves no cursor and turns no text around, whatever path and error hold."""
    if not text.startswith("long"):
        Operator(f"/tmp/{TEXTS[text]}").say(f"cannot write ({TEXTS[text]})")
        said = capsys.readouterr().err

        assert 1 == said.count("\n")
        assert said[:-1].isprintable()


@pytest.mark.parametrize("text", ["terminal", "newlines", "bidi", "c1", "surrogates"])
def test_a_drop_warning_is_safe_for_the_terminal(make_handler, logger, unattended, warnings, text):
    """
    The drop warning names loggers, and a program may name them after what it was sent: they are shown escaped.

    Without a handler of its own the warning goes to stderr as it is (`logging.lastResort`).
    """
    handler = make_handler(capacity=1, reserve=0, fair_share=1)
    record = logging.LogRecord(TEXTS[text], 20, "file.py", 1, "x", (), None)
    for _ in range(3):
        handler.handle(record)
    handler.listener.handle(None)

    assert [True] == [warning.getMessage().isprintable() for warning in warnings]
