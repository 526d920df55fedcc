"""
Patterns: which records say the same, and what is new.
"""

from __future__ import annotations

import logging

import pytest
from logged import BEGIN, record

from sqlite_log_handler import FilterError, LimitError, LogReader
from sqlite_log_handler._read import patterns
from sqlite_log_handler._write import row


def said(msg, *args, lineno=7, seconds=0.0, level=logging.INFO, name="shop"):
    """Make a record of a template and its arguments."""
    made = record(msg, level, name, seconds=seconds, lineno=lineno)
    made.args = args
    return made


@pytest.fixture
def shop(log, path):
    """A log with two templates, one of which has moved, and two call sites without."""
    log(
        said("order %d paid", 1),
        said("order %d paid", 2, seconds=1),
        said("order %d paid", 3, lineno=9, seconds=2, level=logging.ERROR),
        said("no stock of %s", "tea", lineno=9, seconds=3),
        said("user 17 seen", lineno=11, seconds=4),
        said("user 18 seen", lineno=11, seconds=5),
        said("%s", "at 0x7ffe", lineno=12, seconds=6),
    )
    with LogReader(path) as reader:
        yield reader


def test_patterns_count_by_template(shop):
    """Records of one template are one pattern, also when its line has moved; without one, those of a call site are."""
    found = [(one.text, one.is_guessed, one.records, one.levels, one.sample) for one in shop.patterns()]

    assert [
        ("order %d paid", False, 3, {20: 2, 40: 1}, "order 3 paid"),
        ("user <n> seen", True, 2, {20: 2}, "user 18 seen"),
        ("at <hex>", True, 1, {20: 1}, "at 0x7ffe"),
        ("no stock of %s", False, 1, {20: 1}, "no stock of tea"),
    ] == found


def test_a_pattern_says_since_when(shop):
    """A pattern has the times of its first and its last record, and the newest's id and call site."""
    paid = shop.patterns()[0]
    begin_us = int(BEGIN.timestamp()) * 1_000_000

    assert (begin_us, begin_us + 2_000_000, 3) == (paid.first_us, paid.last_us, paid.last_id)
    assert ("shop", "/srv/shop/app.py:9 work", 3 / 7) == (paid.logger, paid.source, paid.share)


@pytest.mark.parametrize("filters", [{}, {"level": "ERROR"}, {"text": "user"}, {"after_id": 3}, {"logger": "nobody"}])
def test_counts_add_up(shop, filters):
    """Each record that matches belongs to one pattern, and `pattern_of` finds as many as were counted."""
    found = shop.patterns(**filters)

    assert shop.count(**filters) == sum(pattern.records for pattern in found)
    assert [one.records for one in found] == [shop.count(pattern_of=one.last_id, **filters) for one in found]
    assert not found or sum(one.share for one in found) == pytest.approx(1)


def test_a_row_that_is_not_there_has_no_pattern(shop):
    """`pattern_of` says so when there is no such row."""
    with pytest.raises(FilterError, match="there is no row 99"):
        shop.count(pattern_of=99)


@pytest.mark.parametrize(("seconds", "expected"), [(0, 4), (3, 3), (4, 2), (5, 1), (7, 0)])
def test_new_since_a_time(shop, seconds, expected):
    """New is what no row before that time has said, and all of its rows are counted."""
    assert expected == len(shop.patterns(new_since=f"@{BEGIN.timestamp() + seconds}"))


def test_filters_do_not_make_a_pattern_new(shop):
    """
    What an older row has said stays known, although a filter leaves that row out.

    An error of a template that was information before is the same pattern.
    """
    assert [] == shop.patterns(new_since=f"@{BEGIN.timestamp() + 2}", level="ERROR")
    assert [] == shop.patterns(new_since=f"@{BEGIN.timestamp() + 5}", since=BEGIN.replace(year=2026))


def test_a_line_that_has_moved_is_not_new(log, path):
    """A message without a template that says the same, in the same function of a changed file, is not new."""
    log(said("user 17 seen", lineno=11), said("user 5 seen", lineno=14, seconds=9), said("bye", lineno=15, seconds=9))
    with LogReader(path) as reader:
        found = reader.patterns(new_since=f"@{BEGIN.timestamp() + 5}")

    assert ["bye"] == [pattern.text for pattern in found]


def test_a_template_without_letters_is_counted_as_any_other(log, path):
    """
    A template such as `%s: %s` is one pattern wherever its line has moved, so other values do not make it new.

    It was counted by call site, and each release that moved the line made an old warning new.
    """
    log(said("%s: %s", "a.csv", "no header"), said("%s: %s", "orders.xml", "empty", lineno=8, seconds=9))
    with LogReader(path) as reader:
        (found,) = reader.patterns()

        assert ("%s: %s", False, 2) == (found.text, found.is_guessed, found.records)
        assert 2 == reader.count(pattern_of=1)
        assert [] == reader.patterns(new_since=f"@{BEGIN.timestamp() + 5}")
        assert frozenset() == reader.brief(f"@{BEGIN.timestamp() + 5}").new


def test_a_call_site_with_too_many_templates(log, path, monkeypatch):
    """
    What a call site says beyond its first templates is one guessed pattern, so in another order it can seem new.

    The page of the command line says so.
    """
    monkeypatch.setattr(row, "_TEMPLATES_OF_A_SITE", 2)
    texts = ["one %d", "two %d", "three %d", "four %d"]
    for seconds, order in ((0, texts), (9, texts[::-1])):
        monkeypatch.setattr(row, "_templates", set())  # as in another process
        monkeypatch.setattr(row, "_template_counts", {})
        log(*(said(text, 1, seconds=seconds) for text in order))
    with LogReader(path) as reader:
        assert [4, 1, 1, 1, 1] == [one.records for one in reader.patterns()]
        assert {"three %d", "four %d"} == {one.text for one in reader.patterns(new_since=f"@{BEGIN.timestamp() + 5}")}


@pytest.mark.parametrize("cell", ["CAST(logger AS BLOB)", "CAST(x'78ff' AS TEXT)"])
def test_a_logger_that_is_no_text_has_no_pattern_to_filter_by(log, reading, change, cell):
    """`pattern_of` finds no row whose logger is no text in UTF-8, as no handler writes it."""
    log(record())
    change(f"UPDATE sources SET logger = {cell}")

    assert 0 == reading().count(pattern_of=1)


def test_new_since_a_run(log, path, change):
    """A run is a number, and what no record before its start has said is new."""
    log(said("first %d", 1), said("second %d", 1, seconds=9))
    change("UPDATE processes SET started_us = ?", int(BEGIN.timestamp() + 5) * 1_000_000)
    with LogReader(path) as reader:
        assert ["second %d"] == [one.text for one in reader.patterns(new_since=0)]
        with pytest.raises(FilterError, match="there is no run 7"):
            reader.patterns(new_since=7)


@pytest.mark.parametrize("level", [-5, 255, 256, 70_000, 2**62])
def test_any_level_is_counted(log, path, level):
    """Levels beyond a byte are counted as the others are."""
    log(said("a %d", 1, level=level), said("a %d", 2))
    with LogReader(path) as reader:
        (found,) = reader.patterns()

    assert ({level: 1, 20: 1}, 2) == (found.levels, found.records)


def test_what_stands_in_no_log_is_counted(log, path, change):
    """In a file from elsewhere any value may stand in any column, and a source may be missing."""
    log(said("a %d", 1))
    change("UPDATE records SET source_id = 9223372036854775807, levelno = 'x', created_us = 'y'")
    with LogReader(path) as reader:
        (found,) = reader.patterns()

    assert (1, {0: 1}, 0) == (found.records, found.levels, found.first_us)


def many(log):
    """Log five old patterns, the first of which are most frequent, and later these, a new one, and one that moved."""
    old = [
        said(f"old {name} %d", 1, lineno=ord(name)) for number, name in enumerate("edcba") for _ in range(number + 1)
    ]
    moved = [said("seen 5", lineno=1), *(said(f"seen {number}", lineno=2, seconds=9) for number in range(3))]
    new = [said("new %d", 1, seconds=9, lineno=5, level=logging.ERROR)]
    log(*old, *moved, *(said("old a %d", 1, lineno=6, seconds=9) for _ in range(30)), *new)


@pytest.mark.parametrize(("name", "most"), [("_MOST", 3), ("_MOST_BYTES", 800)])
def test_more_patterns_than_fit_into_memory(log, path, monkeypatch, name, most):
    """
    Beyond a number of call sites, or of bytes of their names, all others are one pattern; errors have their own.

    A log with 100,000 call sites took 240 MB.
    """
    many(log)
    monkeypatch.setattr(patterns, name, most)
    with LogReader(path) as reader:
        found = {one.text if one.logger != "(other)" else one.logger: one.records for one in reader.patterns()}
        rows = reader.count()

    assert {"old a %d", "new %d", "(other)"} <= {*found}
    assert rows == sum(found.values())
    assert 4 >= len(found)


@pytest.mark.parametrize(("most", "expected"), [(10_000, ["new %d"]), (3, ["new %d"]), (1, ["new %d"])])
def test_what_is_new_among_too_many(log, path, monkeypatch, most, expected):
    """Of too many call sites, those that no older row has have a pattern of their own before all others."""
    many(log)
    monkeypatch.setattr(patterns, "_MOST", most)
    with LogReader(path) as reader:
        found = reader.patterns(new_since=f"@{BEGIN.timestamp() + 5}")
        brief = reader.brief(f"@{BEGIN.timestamp() + 5}")

    assert expected == [one.text for one in found]
    assert 34 == brief.records
    assert {one.last_id: 30 / 5 for one in brief.patterns if one.text == "old a %d"}.keys() <= brief.grown.keys()


def test_more_levels_than_any_log_has(log, reading):
    """
    Records at thousands of levels are refused, because a pattern has a number for each level.

    `patterns` wrote one line of 25 MB for 99,000 of them, and `brief` no brief at all.
    """
    log(*(record(level=100 + number) for number in range(1_001)))

    with pytest.raises(LimitError, match="lines"):
        reading().patterns()
    assert ["patterns"] == [reason.partition(":")[0] for reason in reading().brief().left_out]
