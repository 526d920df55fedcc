"""
Records that come in the last frames before the recursion limit.
"""

from __future__ import annotations

import inspect
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

import sqlite_log_handler

PACKAGE = str(Path(sqlite_log_handler.__file__).parent)


def with_frames_left(count, call):
    """Make *call* where about *count* frames are left; return the RecursionError that comes of that, or None."""

    def descend(frames):
        return descend(frames - 1) if frames else call()

    try:
        descend(sys.getrecursionlimit() - len(inspect.stack(0)) - count)
    except RecursionError as error:
        return error
    return None


def files_of(error):
    """Return the files of the frames through which an exception came."""
    traceback, files = getattr(error, "__traceback__", None), []
    while traceback is not None:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return files


OPTIONS: dict[str, dict[str, Any]] = {
    "closed": {},
    "running": {},
    "first": {},
    "second": {},
    "urgent": {},
    "full": {"capacity": 2, "reserve": 0},
    "shared": {"capacity": 400, "fair_share": 0},
    "contended": {},
    "filtered": {},
    "formatted": {},
    "cut": {"max_record_bytes": 1024},
}


def make_record(state, number):
    """Make a record for a handler in this *state*."""
    # In a full queue the first record of each logger takes the long way.
    name = f"logger {number}" if state in {"full", "shared"} else "logger"
    record = logging.LogRecord(name, logging.INFO, __file__, 1, "hello %d", (17,), None)
    if state == "urgent":
        record.levelno = logging.ERROR
    if state == "cut":
        vars(record)["value"] = "x" * 2_000
    return record


def prepare(handler, state):
    """Bring a handler back into its *state*."""
    if state == "closed":
        handler.close()
    if state in {"first", "second", "contended"}:
        handler.flush()
    if state in {"second", "contended"}:
        handler.handle(make_record(state, 0))


def test_no_thread_is_begun_in_the_last_frames(make_handler, monkeypatch):
    """Where starting a thread may find no frames, none is begun, and the record counts as dropped."""

    def start():
        started.append(True)
        raise RuntimeError

    handler, started = make_handler(), []
    monkeypatch.setattr(handler.listener, "start", start)
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with_frames_left(60, lambda: handler.handle(logging.makeLogRecord({"name": "shop"})))

    assert ([], {"contended": 1}) == (started, handler.stats().dropped_by_cause)


def test_a_record_without_any_frame_counts_as_its_own(make_handler, monkeypatch):
    """A record for which there is no frame at all counts by its level, time and logger, if these are plain."""

    def emit(_):
        raise RecursionError

    handler = make_handler()
    monkeypatch.setattr(handler, "emit", emit)
    plain = logging.makeLogRecord({"name": "shop", "levelno": 30, "created": 5.0})
    for record in plain, logging.makeLogRecord({"name": None, "levelno": None, "created": None}), None:
        handler.handle(record)

    unknown = ("contended", 0, 0.0, "?")
    assert [("contended", 30, 5.0, "shop"), unknown, unknown] == handler.queue.ledger.waiting


@pytest.mark.parametrize("state", OPTIONS)
def test_a_record_in_the_last_frames(make_handler, monkeypatch, state):
    """
    No RecursionError comes out of the handler, once a record has reached it: that is queued or counted, and once.

    Near the end of the stack the error came out of the log call, and nobody counted the record, or it was counted and
    queued; a listener that was being started there never ran, and no later record started one.
    """
    handler = make_handler(flush_interval=3600, **OPTIONS[state])
    if state == "filtered":
        handler.addFilter(lambda record: record.missing)
    if state == "formatted":
        handler.setFormatter(logging.Formatter("%(missing)s"))
    monkeypatch.setattr(logging, "raiseExceptions", False)
    for number in range(5):
        handler.handle(make_record(state, number))
    kept, lost = 0, 0
    while lost < 3:
        prepare(handler, state)
        record, before = make_record(state, kept), handler.stats().seen
        with monkeypatch.context() as patch:
            if state == "contended":
                patch.setattr("sqlite_log_handler._write.queue.acquire", lambda *_: iter([False]))
            raised = with_frames_left(80 - kept - lost, lambda record=record: handler.handle(record))
        assert (raised is None) == handler.stats().seen - before, kept
        assert not [file for file in files_of(raised) if file.startswith(PACKAGE)]
        thread = handler.listener._thread
        assert handler.queue.closed if thread is None else thread.is_alive()
        kept, lost = kept + (raised is None), lost + (raised is not None)

    assert kept > 50
    seen = handler.stats().seen
    handler.handle(make_record(state, 0))
    assert handler.stats().seen == seen + 1
    assert handler.flush()
    assert handler.stats().queued == 0
