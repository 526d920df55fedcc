"""
What an agent is answered, without the server: marks, long fields, and a statement that takes much memory.
"""

from __future__ import annotations

import json
import re
import time

import pytest
from command_line import log_of, record

from sqlite_log_handler import SQLiteHandler
from sqlite_log_handler._cli import agent_tools
from sqlite_log_handler._cli.agent_tools import Tools, answer, marked
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._read import opening, scan, sql
from sqlite_log_handler._read.sql import QueryError


@pytest.fixture
def tools(path):
    """Tools for a log of one record with a long message."""
    log_of(path, record("begin " + "x" * 9_000 + " end"))
    return Tools(str(path))


def test_marks_are_new_each_time():
    """No log can contain the marks in advance, and what is left out is said outside of them."""
    pattern = re.compile(r"<log (\w{8})> .*\nm\n</log \1>\n\[left out: more\]")
    marks = {found[1] for found in map(pattern.fullmatch, (marked(["m"], "more") for _ in range(9))) if found}

    assert 9 == len(marks)


@pytest.mark.parametrize(
    ("name", "named"),
    [("brief", {}), ("search", {}), ("record", {"id": 2}), ("patterns", {}), ("sql", {"statement": "SELECT 1"})],
)
def test_rows_that_no_tool_sees(tools, monkeypatch, name, named):
    """Each answer says that the newest rows are missing, when the agent's user may not read the -wal."""
    assert "left out: it" not in answer(tools, name, named)
    opened = opening.open_log
    for module in (sql, scan):
        monkeypatch.setattr(
            module, "open_log", lambda *args, **named: opened(*args, **named)._replace(notice="it is read alone")
        )

    assert answer(tools, name, named).endswith("\n[left out: it is read alone]")


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="this system cannot change its time zone")
def test_times_are_in_utc(tools, monkeypatch):
    """
    Each tool reads a time as all of them show it, so an agent can copy one from an answer into the next question.

    `search` and `patterns` read it in the zone of the machine, and found the records of other hours.
    """
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "America/New_York")
            time.tzset()
            asked = {"since": "2025-06-30 11:59", "until": "2025-06-30 12:01"}
            found = tools.search(**asked), tools.search(since="2025-06-30 12:01"), tools.patterns(since=asked["since"])
            brief = tools.brief(since=asked["since"])
    finally:
        time.tzset()

    assert ["begin" in one for one in found] == [True, False, True]
    assert ": since 2025-06-30 11:59:00" in brief


@pytest.mark.parametrize("newest", [99, 100, 101, 1_000])
def test_a_search_says_where_it_goes_on(path, newest):
    """
    An answer says that older records match, however many were asked for.

    An agent that asked for more than a hundred got a hundred, and no word of the others.
    """
    log_of(path, *[record("tick")] * 101)

    older = f"older records: the same with up_to_id={101 - min(newest, 100)}"
    assert Tools(str(path)).search(newest=newest).endswith(f"\n[left out: {older}]")


@pytest.mark.parametrize("most", [3, 1_000])
def test_patterns_say_where_they_go_on(path, most):
    """
    An answer says how to ask for the other patterns, and so they all come, each once.

    It said how many there were, and nothing gave those for which an answer has no room.
    """
    words = [f"{first}{second} " for first in "abcd" for second in "abcdefghij"]
    log_of(path, *(record(word + "x" * 300, lineno=number) for number, word in enumerate(words)))
    found: list[str] = []
    skip: int | None = 0
    while skip is not None:
        *lines, end = Tools(str(path)).patterns(most=most, skip=skip).splitlines()
        found += [line.rpartition(": ")[2][:3] for line in lines if " id " in line]
        left = len(words) - len(found)
        skip = len(found) if left else None
        assert not left or f"[left out: {left} more pattern{'s'[: left - 1]}, {left} record{'s'[: left - 1]}: " in end
        assert not left or end.endswith(f": the same with skip={skip}]")

    assert words == found


def test_a_text_that_is_cut_says_so(path):
    """What an answer cuts off is no secret: a message, attributes, a logger, and a pattern then end with dots."""
    log_of(path, record("m" * 401, name="l" * 101, why="w" * 400), record("m" * 400, name="l" * 100))
    tools = Tools(str(path))
    whole, cut = tools.search().splitlines()[1:3]

    assert whole.endswith(f" {'l' * 100}: {'m' * 400}")
    assert f" {'l' * 100}...: {'m' * 400}... " in cut
    assert cut.endswith("w...")
    assert ["m..."] * 2 == [line[-4:] for line in tools.patterns().splitlines()[1:3]]


def test_a_long_field_has_its_beginning_and_its_end(tools):
    """Of a long value the beginning and the end are shown, and how much is left out between them."""
    shown = tools.record(1)

    assert "message: begin xxx" in shown
    assert "xxx end" in shown
    assert "[3,010 characters left out, from character 3001 on]" in shown


@pytest.mark.parametrize("characters", ["0123456789", "\x1b\x85\u202eé"])
def test_a_long_field_says_how_to_read_on(path, characters):
    """An answer gives a statement, and where the beginning of a field ends; an agent had to find it out."""
    text = "".join(f"{characters}{number} " for number in range(3_000))
    log_of(path, record(text))
    tools = Tools(str(path))
    shown = tools.record(1)
    begin, cut = shown.split("message: ", 1)[1].split("\n[", 1)
    start = int(cut.split("from character ")[1].split()[0])
    left, statement = shown.splitlines()[-1].rstrip("]").split(" as ")
    rest = tools.sql(statement.replace(", 1, ", f", {start}, ")).splitlines()[2]

    assert "[left out: a part of message: `sql` has them," == left
    assert printable("".join(text[: start - 1].splitlines(keepends=False))) == begin.replace("\n", "")
    assert printable(json.dumps([text[start - 1 : start + 499]], ensure_ascii=False)) == rest


def test_a_field_that_sql_cannot_read(path):
    """An answer names no statement for a field of more than 100 kB: it failed, and its error named the same one."""
    handler = SQLiteHandler(path, max_record_bytes=200_000, close_timeout=60)
    handler.handle(record("m" * 100_001))
    handler.handle(record("m" * 100_001, why="w" * 9_000))
    handler.close()
    tools = Tools(str(path))

    assert "[left out: a part of message]" == tools.record(1).splitlines()[-1]
    assert "SELECT substr(attributes, 1, 500)" in tools.record(2).splitlines()[-1]
    with pytest.raises(QueryError, match="record shows"):
        tools.sql("SELECT substr(message, 1, 500) FROM logs WHERE id = 1")


def test_fields_have_the_room_that_others_leave(path):
    """A message and a traceback of some thousands of characters are whole if the answer has room for both."""
    log_of(path, record("m" * 2_100 + "M" + "m" * 500, why="w" * 1_000 + "W" + "w" * 1_500))
    shown = Tools(str(path)).record(1)

    assert "left out" not in shown
    assert len(shown) < 8_200


@pytest.mark.parametrize(
    ("id_", "context", "shown", "left"),
    [
        (15, 2, [13, 14, 15, 16, 17], []),
        (15, 3, [13, 14, 15, 16, 17], [12, 18]),
        (2, 10, [1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11, 12]),
        (29, 5, [26, 27, 28, 29, 30], [24, 25]),
    ],
)
def test_lines_around_a_record_that_do_not_fit(path, id_, context, shown, left):
    """
    The lines nearest to a record are shown, on both sides, and an answer says which it leaves out and how to ask.

    It left out those after the record, and called them "the last fields".
    """
    log_of(path, *(record("m" * 2_000, why="w" * 2_000, exc_text="x" * 1_800) for _ in range(30)))
    tools = Tools(str(path))
    *lines, end = tools.record(id_, context).splitlines()

    assert shown == [int(found[1]) for line in lines if (found := re.match(r"(\d+) 20\d\d-", line))]
    assert "the last fields" not in end
    first, *_, last = sorted([*shown, *left])
    asked = f"`search` has them, with up_to_id={last} and newest={last - first + 1}"
    words = f"; lines around it (ids {', '.join(map(str, left))}): {asked}]"
    assert end.endswith(words) if left else "around it" not in end
    searched = tools.search(up_to_id=last, newest=last - first + 1).splitlines()
    assert all(any(line.startswith(f"{number} 20") for line in searched) for number in left[-5:])


def test_a_statement_that_takes_much_memory(tools, monkeypatch):
    """SQLite's limit of memory is a mistake of the statement that is told, and no end of the server."""

    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr(agent_tools, "query", no_memory)
    monkeypatch.setattr(agent_tools, "_HEAP_BYTES", 1 << 40)  # it stays for as long as the process lives
    with pytest.raises(QueryError, match=r"takes more than \d+ MiB of memory: ask for less at a time"):
        tools.sql("SELECT 1")
