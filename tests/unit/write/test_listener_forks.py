"""
The listener and forks: what a fork waits for, and how a child begins anew.
"""

from __future__ import annotations

import threading

import pytest
from listeners import put

from sqlite_log_handler._logfile import forks
from sqlite_log_handler._write import listener as listener_module


def test_a_fork_waits_for_a_file_to_be_closed_with_a_limit(make):
    """
    A disk that does not answer holds the thread that closes the file, and not the fork.

    The fork held logging's lock meanwhile: for 15 seconds no other thread could make a logger.
    """
    listener = make()
    listener.start()
    inside, leave = threading.Event(), threading.Event()

    def frozen(_):
        inside.set()
        leave.wait()

    listener.committer.writer.close, close = frozen, listener.committer.writer.close
    listener.before_fork(0.01)
    inside.wait()
    assert (True, None) == (listener.committer.lock._lock.locked(), listener.committer.lock._forking)
    listener.committer.lock.after_fork_in_parent()
    assert listener.committer.lock._lock.locked()
    leave.set()
    assert listener.committer.lock._lock.acquire(timeout=60)
    listener.committer.lock._lock.release()

    listener.committer.writer.close = close
    listener.before_fork(60)
    assert (1, threading.get_ident()) == (listener.committer.writer.closed, listener.committer.lock._forking)
    listener.committer.lock.after_fork_in_parent()
    assert not listener.committer.lock._lock.locked()


def test_locked_files_leave_time_to_each_other_at_a_fork(make):
    """
    Each of several handlers waits a fifth of the time that is left for the lock of its file.

    When five files were locked, the sixth handler had no time to close its own, and the child could write to no log.
    """
    listener, left, waits = make(), 5.0, []
    listener.committer.writer.close = waits.append
    for _ in range(2):
        listener.before_fork(left)
        listener.committer.lock.after_fork_in_parent()
        left -= waits[-1]

    assert [1.0, 0.8] == waits


@pytest.mark.parametrize(
    ("module", "name", "everything"),
    [(listener_module, "_listeners", listener_module.all_listeners), (forks, "_connections", forks._all)],
)
def test_a_fork_beside_a_thread_that_makes_a_handler(monkeypatch, module, name, everything):
    """Another thread that makes a handler, or opens a file, as a fork looks at all of them has it look again."""

    class Grown:
        """A set that grows the first time that it is looked through."""

        def __iter__(self):
            monkeypatch.undo()
            raise RuntimeError("Set changed size during iteration")

    known = everything()
    monkeypatch.setattr(module, name, Grown())

    assert set(known) == set(everything())


def test_a_fork_without_a_thread_starts_none(make):
    """A program whose listener has no thread may fork because it must have none: it closes the file itself."""
    listener, closed = make(), []
    listener.committer.writer.close = lambda _: closed.append(threading.get_ident())
    listener.before_fork(60)
    listener.committer.lock.after_fork_in_parent()

    assert [threading.get_ident()] == closed


def test_a_fork_at_exit_closes_the_file_itself(make, monkeypatch):
    """Where no thread can be started any more, the thread that forks closes the file."""

    def refused(*_):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    listener = make()
    listener._thread = threading.current_thread()
    monkeypatch.setattr("sqlite_log_handler._write.locks.start_new_thread", refused)
    listener.before_fork(60)
    assert 1 == listener.committer.writer.closed
    listener.committer.lock.after_fork_in_parent()
    listener._thread = None

    assert not listener.committer.lock._lock.locked()


@pytest.mark.parametrize("lost", [False, True])
def test_a_child_without_hooks_begins_anew(make, lost):
    """A process that C code has forked has no thread; the file is lost to it only if a commit was going on."""
    listener = make()
    put(listener, 3)
    if lost:
        listener.committer.lock._lock.acquire()
    listener.after_fork_in_child()

    assert (0 if lost else None, 0, True) == (
        listener.committer.writer.cut_off,
        listener.queue.queued,
        listener.queue.closed,
    )


def test_a_forked_child_begins_anew(make):
    """In the child there is no thread, no connection, nothing queued and nothing counted, and each lock is free."""
    listener = make(capacity=2)
    put(listener, 3)
    listener.committer.outage.last_error = "of the parent"

    listener.before_fork(5.0)
    assert listener.committer.lock._lock.locked()
    listener.after_fork_in_child()

    assert not listener.committer.lock._lock.locked()
    assert (0, 0, 1) == (listener.queue.books()["seen"], listener.queue.queued, listener.committer.writer.forgotten)
    assert (None, None, True) == (listener._thread, listener.committer.outage.last_error, listener.queue.closed)


def test_a_fork_waits_for_a_commit_with_a_limit(make):
    """A fork waits for the commit lock, so that SQLite is not copied in the middle of one, but never for ever."""
    listener = make()
    with listener.committer.lock._lock:
        listener.before_fork(0.001)
        listener.committer.lock.after_fork_in_parent()
        assert listener.committer.lock._lock.locked()

    listener.before_fork(0.001)
    listener.committer.lock.after_fork_in_parent()

    assert not listener.committer.lock._lock.locked()
