"""
The acquisition that no signal handler can tear.
"""

from __future__ import annotations

import ast
import dis
import sys
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from locked import is_free

import sqlite_log_handler
from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.locks import acquire
from sqlite_log_handler._write.retention.archiver import Archiver
from sqlite_log_handler._write.retention.limits import Limits

PACKAGE = Path(sqlite_log_handler.__file__).parent


@pytest.fixture(params=[threading.Lock, threading.RLock])
def lock(request):
    """Make a lock of each kind."""
    return request.param()


def test_waits_with_a_limit(lock):
    """A lock that another thread holds is not taken, and no limit is too long for the system."""
    with lock:
        assert not is_free(lock, 0.001)

    (held,) = acquire(lock, 1e300)
    lock.release()
    assert held


def test_takes_the_lock_only_when_it_is_unpacked(lock):
    """What is raised before the result is unpacked finds the lock free."""
    acquire(lock, 0)

    assert is_free(lock)


@pytest.mark.parametrize("hold", ["in_use", "quiet"])
def test_a_signal_at_any_call_of_a_statement(hold):
    """
    Wherever a signal handler raises while a thread uses a connection, its lock is free afterwards.

    Ctrl-C when it had just been taken, or was just to be let go of, left it to this thread for ever: another thread
    that closed the connection waited without end, and so did a fork, for five seconds. Where the thread that commits
    kept the archive's reader still, no part was written any more.
    """
    connection = forks.Connection(":memory:", file=None)
    archiver: Any = Archiver(None, Limits(max_rows=1))  # type: ignore[arg-type]
    archiver._run = SimpleNamespace(reader=connection)
    holding = {"in_use": connection.in_use, "quiet": lambda: archiver.quiet(0)}[hold]
    calls = at = 0

    def interrupt(frame, event, argument):
        nonlocal calls
        # No signal handler runs just before a call of C code, nor when a function in Python has returned.
        ours = frame.f_code is use.__code__ or frame.f_code.co_filename.startswith(str(PACKAGE))
        # But CPython 3.15 runs none when a `with` has just entered.
        entered = sys.version_info >= (3, 15) and getattr(argument, "__name__", "") == "__enter__"
        calls += ours and event in {"call", "c_return"} and not entered
        if calls == at:
            raise KeyboardInterrupt(frame.f_code.co_name, frame.f_lineno, event, argument)

    def use():
        with holding():
            connection.execute("SELECT 1")

    while calls == at:
        calls, at, where = 0, at + 1, None
        try:
            sys.setprofile(interrupt)
            use()
        except KeyboardInterrupt as error:
            where = error.args
        sys.setprofile(None)
        assert is_free(connection.lock), where
    connection.close()


def frames(code):
    """Yield a code object and those within it, but for expressions that have a frame of their own."""
    yield code
    for constant in code.co_consts:
        if hasattr(constant, "co_consts") and not constant.co_name.startswith("<"):
            yield from frames(constant)


def guarded(function):
    """Yield where each `with` and `try` of a function that cleans up after Ctrl-C begins and ends."""
    nested = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    inner = {node for other in nested if other is not function for node in ast.walk(other)}
    for node in {*ast.walk(function)} - inner:
        body: list[Any]
        match node:
            case ast.With(body=body, items=items) if any("suppress" not in ast.unparse(item) for item in items):
                pass
            case ast.AsyncWith(body=body):
                pass
            case ast.Try(finalbody=[_, *_]):
                body = [*node.body, *node.handlers, *node.orelse]
            case ast.Try(body=body) if any("BaseException" in ast.unparse(one) for one in node.handlers):
                pass
            case _:
                continue
        yield (body[0].lineno, body[0].col_offset), (body[-1].end_lineno, body[-1].end_col_offset)


def forgotten(code):
    """Yield the place of each loop that jumps back where the interpreter has no entry for what is raised."""
    instructions = {each.offset: each for each in dis.Bytecode(code)}
    kept = {at for entry in dis.Bytecode(code).exception_entries for at in range(entry.start, entry.end)}  # type: ignore[attr-defined]
    for before, each in pairwise(instructions.values()):
        # CPython 3.12 has no entry where a generator takes what is thrown into it, in a `yield from`, for its end.
        if each.opname == "JUMP_BACKWARD" and each.offset not in kept and before.opname != "CLEANUP_THROW":
            place: Any = instructions[each.argval].positions
            yield place.lineno, place.col_offset


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_loop_that_loses_its_with(path):
    """
    No `with` or `try` of the package has a jump back which the interpreter forgets, see `_logfile.locks`.

    If this fails, let the loop end with a statement that always runs, or move it into a function of its own.
    """
    text = path.read_text(encoding="utf-8")
    places = {
        (node.name, min(part.lineno for part in (node, *node.decorator_list))): [*guarded(node)]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    lost = [
        (code.co_name, line)
        for code in frames(compile(text, str(path), "exec"))
        for line, column in forgotten(code)
        if any(first <= (line, column) <= last for first, last in places.get((code.co_name, code.co_firstlineno), ()))
    ]

    assert [] == lost
