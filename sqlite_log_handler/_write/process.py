"""
The process that logs: its exit, its forks, and how it notices a fork that Python did not make.

A fork by Python runs the hooks at the end of this file. One by C code, as uWSGI's or that of daemon(3), may not. Then
the first record with the new process id begins anew, see `handler.emit`. So does a record from a hook of the program
that runs before ours.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from os import getpid  # so that a test that replaces `os.getpid` does not look like a fork

from sqlite_log_handler._logfile import forks
from sqlite_log_handler._logfile.clock import monotonic
from sqlite_log_handler._logfile.locks import LOGGING_LOCK, acquire
from sqlite_log_handler._write import locks, row, threads
from sqlite_log_handler._write.committer import Committer
from sqlite_log_handler._write.listener import RecordListener, all_listeners
from sqlite_log_handler._write.queue import GIL

_EXIT_COMMIT_TIMEOUT = 1.0  # seconds that a record waits for another thread's commit when the interpreter exits
FORK_TIMEOUT = 5.0  # seconds that a fork waits for commits to end and files to be closed


class _Exit:
    """
    Write what is queued when the interpreter exits.

    `logging.shutdown` closes the handlers in logging's list. A handler that `dictConfig` took off the list, and left
    attached to a logger, is missing there, and so is one that came back to life. This closes all of them.
    """

    _watches = False

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, also in a forked child."""
        self.begun = self._registered_in_child = False
        self._failed: dict[Committer, float] = {}  # seconds that commits have taken which failed

    def __call__(self) -> None:
        begin_anew()
        self.begun = True
        listeners = all_listeners()
        try:
            for listener in listeners:
                listener.committer.exits = True
                with contextlib.suppress(Exception):
                    listener.close()
                    listener.committer.drop_report.let_exit()
        except BaseException:  # Ctrl-C, from somebody who does not want to wait: `logging.shutdown` comes after this
            for listener in listeners:
                listener.committer.hurried = True
            for listener in listeners:
                listener.committer.drop_report.let_exit()
            raise

    def commit(self, committer: Committer) -> None:
        """Commit a record that came when the interpreter exits, unless such commits have failed for `close_timeout`."""
        failed, timeout = self._failed, committer.at_most(committer.close_timeout)
        # Together, or ten handlers would take ten times as long. One that has not failed may have a healthy file.
        if self.begun and (committer not in failed or sum(failed.values()) < timeout):
            began = committer.now()
            if not committer.commit(_EXIT_COMMIT_TIMEOUT):
                failed[committer] = failed.get(committer, 0.0) + committer.now() - began

    def register_in_child(self) -> None:
        """Run at the end of a multiprocessing child too, which runs no atexit callback up to Python 3.12."""
        # Such a child has both modules. This imports nothing, because after a chroot a program may be unable to.
        process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
        if process is None or util is None:
            return
        if not self._watches:
            # A child may log before it knows that it is one: in a hook of the program, or while it imports its main
            # module. When it begins, it forgets its finalizers, and then calls `_register`.
            self._watches = True
            util.register_after_fork(self, _Exit._register)
        if not self._registered_in_child and process.parent_process() is not None:
            self._register()

    def _register(self) -> None:
        util = sys.modules["multiprocessing.util"]
        self._registered_in_child = True
        util.Finalize(None, self, exitpriority=0)
        # If this is set, the child is ending and calls no new finalizer: this record comes from a thread that it joins.
        self.begun = util._exiting  # noqa: SLF001 - there is no public name


at_exit = _Exit()
atexit.register(at_exit)
if not threads.DAEMON:  # before Python waits for our threads
    threading._register_atexit(at_exit)  # type: ignore[attr-defined]  # noqa: SLF001 - as concurrent.futures does


def _before_fork() -> None:
    """Take the locks, in the order that `_write.locks` gives, and close the files."""
    if row.is_new_process():
        return  # the fork is over, see `_run_hooks`
    # A thread that has logging's lock goes on without: the fork that is under way waits for it, or is nearly over.
    (_,) = acquire(locks.fork_lock, 0 if LOGGING_LOCK._is_owned() else -1)  # noqa: SLF001 - as in `_write.listener`
    held = False
    try:
        (held,) = acquire(LOGGING_LOCK)
        locks.forking.append(threading.get_ident())
        deadline = monotonic() + FORK_TIMEOUT
        for listener in all_listeners():
            listener.before_fork(max(0, deadline - monotonic()))
        forks.hold()  # under logging's lock, so that nobody who has that is on the way to one of these
    finally:
        if held:
            try:  # noqa: SIM105 - there must be no call before this one
                LOGGING_LOCK.release()
            except RuntimeError:  # a signal handler has forked in here, and this is its child, where the lock is new
                pass


def _after_fork_in_parent() -> None:
    """Release all locks. Registered twice, because a signal handler that waited for the fork may raise in the first."""
    for listener in all_listeners():
        listener.committer.lock.after_fork_in_parent()
    with contextlib.suppress(ValueError):  # in the second call
        locks.forking.remove(threading.get_ident())
    if locks.fork_lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition asks
        locks.fork_lock.release()


def _after_fork_in_child() -> None:
    # A child may have its parent's id, as the first one in a PID namespace has.
    if not (locks.forking or row.is_new_process()):
        return  # a hook of the program has logged, and was faster
    at_exit.forget()
    locks.renew_fork_lock()
    forks.let_go()
    cut_off = {listener.committer.lock.cut_off for listener in all_listeners()}
    if cut_off - {None, threading.get_ident()}:
        # Another thread, which this process does not have, may have been inside SQLite.
        forks.get_stuck()  # before any file is closed
    for listener in all_listeners():
        if not (locks.forking or row.is_new_process()):
            return  # a signal handler or a collection has logged in here, and was faster
        listener.after_fork_in_child()
    locks.forking.clear()
    row.learn_pid()


def retire(listener: RecordListener) -> None:
    """End a listener whose handler was collected."""
    begin_anew()
    listener.retire()


_beginning = threading.RLock()
_hooking = 0  # the id of the process that runs all hooks, see `_run_hooks`


def begin_anew() -> None:
    """Do what the hook of a child does, if this process is a child and that hook has not run."""
    if not row.is_new_process():
        return
    held = False
    try:
        # With a time limit: a fork in here copies the lock as held by a thread that the child may not have.
        (held,) = acquire(_beginning, 1.0)
        if row.is_new_process() and not _run_hooks():  # else another thread was faster
            _after_fork_in_child()
    finally:
        if held:
            _beginning.release()


def _run_hooks() -> bool:
    """
    Have Python do what it does after a fork, and run all hooks; return whether ours has run.

    C code that forks should do this (https://docs.python.org/3/c-api/sys.html). If it does not, and a thread of the
    parent waited for the GIL, the first two threads here would wait for that one for ever. Python then deletes the
    state of all other threads, so this process must have none. Without a GIL, Python would wait for the parent's
    threads.

    This does nothing where Python runs the hooks already, and one of the program has logged before ours.
    """
    global _hooking  # noqa: PLW0603 - it belongs to the process
    if locks.forking or _hooking == getpid():
        return False
    _hooking = getpid()
    try:
        import ctypes  # noqa: PLC0415 - only such a child needs it

        if not GIL or len(os.listdir("/proc/self/task")) > 1:
            return False
        ctypes.pythonapi.PyOS_BeforeFork()
        ctypes.pythonapi.PyOS_AfterFork_Child()
    except (ImportError, OSError):  # a system without /proc
        return False
    return not row.is_new_process()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
    os.register_at_fork(after_in_parent=_after_fork_in_parent)
