"""
Any record becomes a row that SQLite takes.
"""

from __future__ import annotations

import io
import math
import os
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import (
    Hostile,
    attributes_of,
    check_contract,
    make_record,
    raised,
    rows_of,
    utf8,
)

from sqlite_log_handler._write.queue import Commit
from sqlite_log_handler._write.row import (
    ATTRIBUTES,
    CREATED,
    LEVELNO,
    SOURCE,
    TASK_NAME,
    THREAD,
    make_row,
)
from sqlite_log_handler._write.writer import Writer

if TYPE_CHECKING:
    import logging

pytestmark = pytest.mark.usefixtures("nothing_interned")


any_text = st.text(st.characters(codec=None), max_size=50) | st.sampled_from(
    ["\0", "\ud800", "'; DROP TABLE records;--"]
)
any_value = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary(max_size=20)
    | st.decimals()
    | st.datetimes()
    | st.builds(Hostile),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(any_text | st.integers() | st.floats(), children, max_size=4)
    ),
    max_leaves=8,
)
any_record = st.builds(
    lambda msg, args, extra, values: make_record(msg, *args, **extra, **values),
    any_text | any_value,
    st.lists(any_value, max_size=2),
    st.dictionaries(
        any_text.filter(lambda key: key not in {*vars(make_record()), "msg", "args"}), any_value, max_size=4
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "name": any_text,
            "levelno": st.integers() | any_value,
            "pathname": any_text,
            "lineno": st.integers(),
            "funcName": any_text | st.none(),
            "created": st.floats() | any_value,
            "process": st.integers() | st.none(),
            "processName": any_text | st.none(),
            "thread": st.integers() | st.none(),
            "threadName": any_text | st.none(),
            "taskName": any_text | st.none(),
            "exc_info": st.sampled_from([None, raised(ValueError("a\0\ud800"))]) | any_value,
            "exc_text": any_text | st.none(),
            "stack_info": any_text | st.none(),
        },
    ),
)


@given(st.lists(any_record, min_size=1, max_size=5), st.sampled_from([1_024, 65_536]))
def test_anything_becomes_a_row_and_reads_back(records: list[logging.LogRecord], max_bytes: int) -> None:
    """The row of any record keeps the contract, SQLite takes it, and gives it back as it was."""
    rows = [row for record in records for row in rows_of(record, max_bytes=max_bytes)]
    for row in rows:
        check_contract(row)
        assert max_bytes >= utf8(row)
        if row[ATTRIBUTES] is not None:
            attributes_of(row)

    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(os.path.join(folder, "app-log.db"))
        try:
            outcome = writer.write(Commit(rows))
            assert not outcome.refused
            assert writer.file.connection is not None
            found = writer.file.connection.execute(
                "SELECT levelno, logger, pathname, lineno, func, process, process_name, thread, thread_name, "
                "task_name, message, exc_type, exc_text, stack_info, attributes FROM logs ORDER BY id"
            ).fetchall()
            times = writer.file.connection.execute("SELECT created_us FROM logs ORDER BY id").fetchall()
        finally:
            writer.close()

    expected = [(row[LEVELNO], *row[SOURCE][:4], *row[THREAD], *row[TASK_NAME:]) for row in rows]
    assert expected == found
    for (created_us,), row in zip(times, rows, strict=True):
        # A float has 53 bits: beyond 285 years from 1970, the last of them is more than a microsecond.
        assert math.isclose(row[CREATED] * 1e6, created_us, rel_tol=1e-15, abs_tol=1)


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad record is marked in its row, and nowhere else."""
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    make_row(make_record("%d", Hostile(), x=Hostile(), exc_info=(1,)))

    assert ("", "") == (stderr.getvalue(), capsys.readouterr().out)
