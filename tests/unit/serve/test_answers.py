"""
What the page is answered: rows by id, one row whole, numbers, gaps.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import Any

import pytest

from sqlite_log_handler.serve import answers


def ids(answer: dict[str, Any]) -> list[int]:
    """Return the ids of the rows of a page."""
    return [row["id"] for row in answer["rows"]]


def test_the_newest_rows(get):
    """Without an order the newest rows come, the oldest of them first, and it is said whether there are more."""
    page = get("rows", lines=3)

    assert [10, 11, 12] == ids(page)
    assert (12, False) == (page["last_id"], page["complete"])
    assert ["WARNING", "WARNING", "ERROR"] == [row["level"] for row in page["rows"]]
    assert "KeyError" == page["rows"][-1]["exc_type"]


def test_pages_meet_without_a_hole(get):
    """Pages of older rows and of newer rows, by the ids at their ends, have each row once."""
    back: list[int] = []
    up_to: int | None = None
    while True:
        page = get("rows", lines=5, **({} if up_to is None else {"up_to_id": up_to}))
        back = ids(page) + back
        if page["complete"]:
            break
        up_to = back[0] - 1
    forth: list[int] = []
    while True:
        page = get("rows", lines=5, order="oldest", after_id=forth[-1] if forth else 0)
        forth += ids(page)
        if page["complete"]:
            break

    assert list(range(1, 13)) == back == forth


def test_counting_instead_of_reading(get):
    """`lines=0` counts what matches, for the button that says how many are new."""
    counted = get("rows", lines=0, after_id=8)
    assert (4, 12) == (counted["count"], counted["last_id"])
    assert 3 == get("rows", lines=0, level="WARNING..WARNING")["count"]


def test_another_file_has_another_log_id(get, make_handler, logger, shop):
    """A file that takes the place of a log gives its ids again, so answers name the file by its `log_id`."""
    questions = [("rows", {}), ("rows", {"lines": 0}), ("histogram", {})]
    before = [get(name, **how)["log_id"] for name, how in questions]
    shop.rename(shop.with_name("moved.db"))
    handler = make_handler(shop)
    logger.addHandler(handler)
    for number in range(12):
        logger.info("row %d of the new file", number)
    assert handler.flush()

    after = [get(name, **how) for name, how in questions]

    assert [12, 12, 12] == [answer["last_id"] for answer in after]
    assert 1 == len(set(before)) == len({answer["log_id"] for answer in after})
    assert before[0] != after[0]["log_id"]


def test_a_log_whose_marks_were_deleted(get, shop):
    """The rows of a log without a `log_id`, which somebody has deleted, are shown all the same."""
    with contextlib.closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("DELETE FROM marks")

    page = get("rows")

    assert (12, None) == (len(page["rows"]), page["log_id"])


def test_filters(get, logger):
    """A question takes the filters of the command line, and their opposites."""
    assert [3, 6] == ids(get("rows", where="customer=c-2"))
    assert [2, 5, 8] == ids(get("rows", where=["customer!=c-0", "customer!=c-2"]))
    assert [12] == ids(get("rows", exception="KeyError"))
    assert [9, 10, 11] == ids(get("rows", logger=f"{logger.name}.cart"))
    assert [*range(1, 9), 12] == ids(get("rows", without="level=30..30"))
    assert [*range(1, 12)] == ids(get("rows", without="exception=KeyError"))
    assert [1, 4, 7, *range(9, 13)] == ids(get("rows", without=["where=customer=c-1", "where=customer=c-2"]))


def test_a_call_site(get):
    """Rows of one call site are found by the file's name and line, and left out by them."""
    row = get("rows/1")
    site = f"conftest.py:{row['lineno']}"

    assert list(range(1, 9)) == ids(get("rows", source=site))
    assert list(range(9, 13)) == ids(get("rows", without=f"source={site}"))
    assert [] == ids(get("rows", source=f"test.py:{row['lineno']}"))


def test_one_row_whole(get):
    """One row has all columns, its attributes as an object, and itself as a text to be copied."""
    row = get("rows/12")

    assert ("order 8 has no price", "KeyError", None) == (row["message"], row["exc_type"], row["extra"])
    assert row["exc_text"] in row["text"]
    assert {"customer": "c-0"} == get("rows/1")["extra"]


def test_the_run_of_a_row(get, shop, make_handler, logger):
    """A row says which start of the program it is of, as `--run` counts: a filter for it finds the row."""
    assert 0 == get("rows/1")["run"]
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE processes SET started_us = started_us - 60000000, pid = pid + 1")
    connection.close()
    handler = make_handler(shop)
    logger.addHandler(handler)
    logger.info("later")
    assert handler.flush()

    assert (-1, 0) == (get("rows/1")["run"], get("rows/13")["run"])
    assert [13] == ids(get("rows", run=0))


def test_a_row_that_is_gone(get):
    """A row that retention deleted is a 404 with a sentence that says so."""
    assert "retention deleted it" in get("rows/99", status=404)["error"]


def test_a_list_shows_the_beginning_of_a_message(get, shop):
    """A message of 64 KiB costs a list 500 characters, and says that it is cut; the row itself has all of it."""
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET message = ? WHERE id = 5", ("x" * 65_536,))
    connection.close()

    (row,) = get("rows", after_id=4, up_to_id=5)["rows"]

    assert ("x" * 500, True) == (row["message"], row["cut"])
    assert 65_536 == len(get("rows/5")["message"])


def test_gaps_stand_on_one_page_each(get, shop):
    """A gap is on the page on which the row before it stands, and on no other one."""
    with sqlite3.connect(shop) as connection:
        for after_id in (0, 3, 5, 6, 12):
            connection.execute(
                "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
                "VALUES (?, 1, 2, 1, 'queue_full', 'shop', 20, 7)",
                (after_id,),
            )
    connection.close()

    whole = get("rows")
    newest = get("rows", lines=6)
    older = get("rows", lines=6, up_to_id=6)
    oldest = get("rows", lines=6, up_to_id=0)
    begin = get("rows", lines=5, order="oldest", after_id=0)
    behind = get("rows", lines=5, order="oldest", after_id=5)

    def places(page: dict[str, Any]) -> list[int]:
        return [gap["after_id"] for gap in page["gaps"]]

    assert [0, 3, 5, 6, 12] == places(whole)
    assert (list(range(7, 13)), [12]) == (ids(newest), places(newest))
    assert (list(range(1, 7)), [3, 5, 6]) == (ids(older), places(older))
    assert ([], [0]) == (ids(oldest), places(oldest))
    assert (list(range(1, 6)), [0, 3]) == (ids(begin), places(begin))
    assert (list(range(6, 11)), [5, 6]) == (ids(behind), places(behind))


def test_numbers(get):
    """Bars add up to the rows, the loudest come first, and the strip's numbers are those of `sqlite-log stats`."""
    assert 12 == sum(sum(bucket["levels"].values()) for bucket in get("histogram")["buckets"])
    top = get("top", by="level")
    assert ("INFO", 8) == (top["top"][0]["name"], top["top"][0]["records"])
    assert 1 == len(get("top", by="logger", lines=1)["top"])
    top = get("top", by="attribute", key="customer")
    assert "c-0" in [one["name"] for one in top["top"]]
    assert {"keys": ["customer"]} == get("keys")
    assert {"keys": []} == get("keys", level="ERROR")
    stats = get("stats")
    assert (12, 0, 1) == (stats["rows"], stats["dropped"], stats["schema"])
    assert {**stats, "levels": {}, "now_us": None} == {**get("stats", levels=0), "now_us": None}
    assert {"gaps": [], "of": 0} == get("gaps")


def test_bars_that_are_added_up(get, shop, make_handler, logger):
    """
    With `counted-id`, records up to it are left out, and what is added is what one count of all says; drops are whole.

    A tab beside a busy log of a million rows counted all of them at each look, which took a tenth of a core.
    """

    def sums(*answers: Any) -> list[tuple[int, int]]:
        found: dict[int, int] = {}
        for bucket in (bucket for answer in answers for bucket in answer["buckets"]):
            found[bucket["since_us"]] = found.get(bucket["since_us"], 0) + sum(bucket["levels"].values())
        return sorted(found.items())

    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET created_us = created_us - 20000000 WHERE id < 5")
        connection.execute(
            "INSERT INTO drops (after_id, since_us, until_us, process_id, cause, logger, levelno, count) "
            "SELECT 5, created_us, created_us, 1, 'queue_full', 'shop', 20, 7 FROM records WHERE id = 5"
        )
    connection.close()
    before = get("histogram", bucket="10", without="level=40..40")
    handler = make_handler(shop)
    logger.addHandler(handler)
    logger.info("later")
    logger.error("left out")
    assert handler.flush()
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET created_us = created_us + 20000000 WHERE id > 12")
    connection.close()
    added = get("histogram", bucket="10", without="level=40..40", counted_id=before["last_id"])
    whole = get("histogram", bucket="10", without="level=40..40")

    assert (12, 14) == (before["last_id"], added["last_id"])
    assert 1 == sum(sum(bucket["levels"].values()) for bucket in added["buckets"])
    assert sums(whole) == sums(before, added)
    dropped = [[bucket["dropped"] for bucket in answer["buckets"]] for answer in (added, whole)]
    assert (7, dropped[1]) == (sum(dropped[0]), dropped[0])


@pytest.mark.parametrize(
    ("question", "parameters", "message"),
    [
        ("rows", {"level": "LOUD"}, "level"),
        ("rows", {"grep": "("}, "regular expression"),
        ("rows", {"order": "random"}, "newest or oldest"),
        ("rows", {"lines": "100000"}, "out of range"),
        ("rows/one", {}, "whole number"),
        ("top", {"by": "moon"}, "choose from logger"),
        ("top", {"by": "attribute"}, "name of an attribute"),
        ("histogram", {"bucket": "long"}, "length of time"),
        ("rows", {"sort": "up"}, "no parameter"),
    ],
)
def test_what_cannot_be_understood(get, question, parameters, message):
    """A question that cannot be understood is a 400, with the text that the command line would print."""
    assert message in get(question, status=400, **parameters)["error"]


def test_more_bars_than_a_page_takes(get, shop):
    """A question for more bars than `most`, or than a page takes, is a 400 that says what to do."""
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET created_us = id * 1000000")
    connection.close()

    assert "most=500: take a longer one" in get("histogram", status=400, bucket="10ms")["error"]
    assert "most=2: take a longer one" in get("histogram", status=400, bucket="1", most=2)["error"]


@pytest.mark.parametrize(("depth", "kept"), [(100, True), (400, False), (80_000, False)])
def test_attributes_that_are_nested_deep(get, shop, depth, kept):
    """What a handler writes is an object; what is nested deeper, in a file from elsewhere, is its text."""
    text = '{"a":' * depth + "1" + "}" * depth
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET attributes = ? WHERE id = 3", (text,))
    connection.close()

    row = get("rows/3")

    assert (text, kept) == (row["attributes"], row["extra"] is not None)


@pytest.mark.parametrize("text", ['{"a":1e999}', '{"a":[-1e999]}', '{"a":{"b":NaN}}'])
def test_numbers_that_json_lacks(get, shop, text):
    """
    Attributes with a number that JSON has no word for are their text.

    Python wrote `Infinity` into the answer, which no browser reads, so the page could not open the row at all.
    """
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET attributes = ? WHERE id = 3", (text,))
    connection.close()

    row = get("rows/3")

    assert (text, None) == (row["attributes"], row["extra"])


def test_numbers_that_a_browser_would_round(get, shop):
    """Whole numbers beyond 2**53 reach the browser as text: it would round them."""
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET thread = 9007199254740993 WHERE id = 1")
    connection.close()

    assert "9007199254740993" == get("rows/1")["thread"]


def test_a_damaged_row_is_an_answer_or_a_sentence(get, shop):
    """Cells of a wrong type are shown, or refused with a sentence; the server goes on."""
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE records SET message = x'fffe', created_us = 'long ago' WHERE id = 2")
    connection.close()

    assert json.dumps(get("rows", lines=2))
    assert 12 == get("rows", lines=1)["last_id"]


def test_a_pattern_outlives_its_row(get, shop):
    """
    What a row says of its pattern finds the same rows when that row is deleted, and leaves out the same.

    The page asked for the pattern of the row itself, and stopped following once retention had deleted it.
    """
    by_row = {"pattern_of": 9}, {"without": "pattern-of=9"}
    pattern = get("rows/9")["pattern"]
    by_value = {"pattern_of": pattern}, {"without": f"pattern-of={pattern}"}
    expected = [[9, 10, 11], [1, 2, 3, 4, 5, 6, 7, 8, 12]]

    assert expected == [ids(get("rows", **asked)) for asked in by_row]
    assert expected == [ids(get("rows", **asked)) for asked in by_value]
    with sqlite3.connect(shop) as connection:
        connection.execute("DELETE FROM records WHERE id = 9")
    connection.close()
    assert [[10, 11], expected[1]] == [ids(get("rows", **asked)) for asked in by_value]


def test_a_long_pattern_is_no_part_of_an_address(get, shop):
    """A pattern of more than 2,000 characters has no text for an address, and its row has to do."""
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE sources SET template = replace(hex(zeroblob(1000)), '0', 'x')")
    connection.close()

    assert get("rows/9")["pattern"] is None


def test_what_changed(get, shop, make_handler, logger):
    """A brief has what is new in the last run, with what it says and since when, and errors by pattern."""
    assert (1, None, [], False, [("order 8 has no price", 1)]) == (
        *(get("brief")[name] for name in ("runs", "since_us", "changes", "is_compared")),
        [(one["sample"], one["times"]) for one in get("brief")["errors"]],
    )
    # Nothing is older than the log, and so nothing in it is called new.
    assert ([], False, [1]) == (
        *(get("brief", since="@0")[name] for name in ("changes", "is_compared")),
        [one["times"] for one in get("brief", since="@0")["errors"]],
    )
    with sqlite3.connect(shop) as connection:
        connection.execute("UPDATE processes SET started_us = started_us - 86400000000")
        connection.execute("UPDATE records SET created_us = created_us - 86400000000")
    connection.close()
    handler = make_handler(shop)
    logger.addHandler(handler)
    logger.info("order %d paid", 9)
    logger.warning("order %d is late", 9)
    assert handler.flush()
    found = get("brief")

    assert (2, True, True, 2, 2) == tuple(
        found[name] for name in ("runs", "is_last_run", "is_compared", "records", "of")
    )
    # The first is said by another file than before.
    assert [("order %d paid", "INFO", None, 13), ("order %d is late", "WARNING", None, 14)] == [
        (one["text"], one["level"], one["times"], one["last_id"]) for one in found["changes"]
    ]
    assert [14] == ids(get("rows", pattern_of=14))
    assert 14 == get("brief", since="-1w")["records"]


def test_the_last_id_there_is(get, shop):
    """A log whose last row has the greatest id that SQLite knows is shown; the answer was that an id is too large."""
    with contextlib.closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute(f"UPDATE records SET id = {2**63 - 1} WHERE id = 12")

    assert [11, str(2**63 - 1)] == [row["id"] for row in get("rows", lines=2)["rows"]]


def test_names_without_number(get, monkeypatch):
    """A log whose attributes have names without end has its first ones counted; each of them took memory."""
    monkeypatch.setattr(answers, "_MOST_COUNTED", 0)

    assert {"keys": []} == get("keys")
