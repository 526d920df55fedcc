"""
The lock beside the file: which process holds it, and which one gets it next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys

import pytest
from forked import in_child
from locked import is_held

from sqlite_log_handler._logfile import write_lock as write_lock_module

pytestmark = pytest.mark.skipif(write_lock_module.fcntl is None, reason="no flock on this system")


def test_one_at_a_time(make_lock, path):
    """While one holds the lock nobody else gets it, and the error names the database."""
    first, second = make_lock(), make_lock()
    with first.hold(0), pytest.raises(TimeoutError, match=path.name), second.hold(0):
        pass

    assert not is_held(second)


def test_an_exception_lets_go(make_lock):
    """What is raised while the lock is held comes out, and the lock is free."""
    first, second = make_lock(), make_lock()
    with pytest.raises(KeyError), first.hold(0):
        raise KeyError

    assert not is_held(second)


def test_an_exception_from_a_signal_handler_lets_go(make_lock, monkeypatch):
    """
    What a signal handler raises when the lock has just been had comes out, and the lock is free.

    A handler that logs nothing afterwards would keep all others from writing.
    """
    real = write_lock_module.fcntl.flock

    def interrupted(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if operation & write_lock_module.fcntl.LOCK_EX:
            raise KeyboardInterrupt

    first, second = make_lock(), make_lock()
    with monkeypatch.context() as patch:
        patch.setattr(write_lock_module.fcntl, "flock", interrupted)
        with pytest.raises(KeyboardInterrupt), first.hold(0):
            pass

    assert not is_held(second)


@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_an_exception_while_it_is_let_go(make_lock, error):
    """
    What a signal handler raises into any call that lets go of the lock leaves it free, also a time limit.

    In an idle program the lock stayed taken, and no other process could write any more.
    """
    first, second = make_lock(), make_lock()
    at = calls = 0
    while calls >= at:
        at, calls = at + 1, 0

        def interrupt(frame, *_):
            nonlocal calls
            if frame.f_code.co_filename == write_lock_module.__file__:
                calls += 1
                if calls == at:  # noqa: B023 - it is called in this round only
                    sys.setprofile(None)
                    raise error

        with contextlib.suppress(error):
            with first.hold(0):
                sys.setprofile(interrupt)
            sys.setprofile(None)

        assert not is_held(second), at

    assert at > 10


def test_a_database_is_closed_under_the_lock_or_without_it(make_lock):
    """`hold_if_free` holds the lock if nobody else does; if another process has it, the block runs without it."""
    first, second = make_lock(), make_lock()
    with first.hold_if_free(0) as held:
        assert (True, True) == (held, is_held(second))
        with second.hold_if_free(0) as held_too:
            assert not held_too
        assert is_held(second)

    assert not is_held(second)


def test_what_is_raised_while_closing_comes_out(make_lock):
    """An error of the block is not taken for one of the lock, and the block runs once."""
    runs = []
    with pytest.raises(OSError, match="disk"), make_lock().hold_if_free(0):
        runs.append(1)
        message = "disk"
        raise OSError(message)

    assert [1] == runs


def test_whoever_waits_tries_again(make_lock, pauses):
    """
    Who waits looks again and again, in pauses that are never the same for two, until it has the lock or no more time.
    """
    first, second = make_lock(), make_lock()
    with first.hold(0), pytest.raises(TimeoutError), second.hold(0.05):
        pass

    assert 25 <= len(pauses) == len(set(pauses))
    assert write_lock_module._PAUSE >= max(pauses)


def test_first_come_first_served(make_lock, pauses, clock):
    """
    Whoever has waited longest gets the lock next, whoever else asks first when it is free.

    A `flock` is not fair: who let go and came again at once had it again, and another process starved for 8 seconds.
    """
    holder, early, late = make_lock(), make_lock(), make_lock()
    with holder.hold(0):
        for lock in (early, late):
            assert not lock._try()
            clock.advance(0.01)
        assert not early._try()
    assert [True, True, False] == [is_held(holder), is_held(late), is_held(early)]
    clock.advance(0.01)
    assert [False, False] == [is_held(late), is_held(holder)]


def test_nobody_waits_for_who_waits_no_more(make_lock, pauses, clock):
    """
    Who has given up, or does not look any more, is waited for no more; who comes back is where it was in the line.
    """
    holder, gone, other = make_lock(), make_lock(), make_lock()
    with holder.hold(0):
        assert not gone._try()
        clock.advance(0.01)
        assert not other._try()
        with pytest.raises(TimeoutError), gone.hold(0.01):
            pass
    with other.hold(0):
        assert not gone._try()
    assert is_held(other)  # `gone` has come back, and has waited since before
    clock.advance(write_lock_module._GONE / 1e6)
    assert not is_held(other)


def test_a_line_that_nobody_can_read(make_lock, path):
    """What somebody else wrote into the lock's file costs nobody the lock."""
    lock = make_lock()
    with lock.hold(0):
        pass
    for text in ("", "not a line", "9 9 99999999999999999999 1\n"):
        path.with_name(path.name + "-lock").write_text(text)
        assert not is_held(lock)


@pytest.mark.parametrize("text", ["a list of locks", "Notes of another program.\n" * 10, "1 2 3 4\n" * 100])
def test_a_file_of_another_program_is_left_as_it_is(make_lock, path, pauses, text):
    """A file that has the lock's name by chance is locked, and not written to: its first 56 bytes were written over."""
    file = path.with_name(path.name + "-lock")
    file.write_text(text)
    lock, other = make_lock(), make_lock()
    with lock.hold(0), pytest.raises(TimeoutError), other.hold(0.01):
        pass

    assert text == file.read_text()


def test_who_is_writing(make_lock, pauses):
    """Who waited in vain is told which process holds the lock."""
    first, second = make_lock(), make_lock()
    with first.hold(0), pytest.raises(TimeoutError, match=f"process {os.getpid()} is writing to"), second.hold(0):
        pass


@pytest.mark.parametrize(
    ("error", "where"),
    [(ProcessLookupError, r" \(not found here\)"), (PermissionError, ""), (OverflowError, "")],
    ids=["gone", "of another user", "no process id"],
)
def test_a_holder_that_is_gone(make_lock, pauses, monkeypatch, error, where):
    """The error says when the system knows no such process, as after a kill, and only then."""

    def kill(process: int, number: int) -> None:
        raise error

    first, second = make_lock(), make_lock()
    monkeypatch.setattr(os, "kill", kill)
    text = f"process {os.getpid()}{where} is writing to"
    with first.hold(0), pytest.raises(TimeoutError, match=text), second.hold(0):
        pass


def test_the_holder_is_written_when_it_changes(make_lock, monkeypatch, pauses):
    """Who has the lock again and again writes its name once, and again after somebody else had it."""
    first, second = make_lock(), make_lock()
    written = []
    real = os.pwrite
    monkeypatch.setattr(
        write_lock_module.os, "pwrite", lambda *arguments: (written.append(arguments[1]), real(*arguments))[1]
    )
    pid = os.getpid()
    for lock, process in ((first, pid), (first, pid), (second, pid + 1), (first, pid)):
        monkeypatch.setattr(write_lock_module.os, "getpid", lambda process=process: process)
        assert not is_held(lock)

    assert [pid, pid + 1, pid] == [int(text) for text in written]


def test_a_full_disk_does_not_keep_anybody_from_the_lock(make_lock, monkeypatch):
    """That nothing can be written into the lock's file is no reason not to have the lock."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write_lock_module.os, "pwrite", full)
    first, second = make_lock(), make_lock()
    with first.hold(0):
        assert is_held(second)

    assert not is_held(second)


def test_an_error_of_a_close(make_lock, monkeypatch):
    """
    A file of the lock that cannot be closed without an error is closed, and nobody hears of it.

    On NFS, a disk is found full only then. The error ended the thread of the archive with a traceback.
    """
    lock, close = make_lock(), os.close
    with lock.hold(0):
        pass

    def fail(descriptor):
        close(descriptor)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with monkeypatch.context() as patch:
        patch.setattr(os, "close", fail)
        lock.close()

    assert None is lock._descriptor


def test_it_goes_with_the_process_that_held_it(make_lock, path):
    """A process that is killed while it holds the lock leaves it free."""
    program = (
        "import sys; from sqlite_log_handler._logfile.write_lock import WriteLock\n"
        "with WriteLock(sys.argv[1]).hold(0): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "held\n" == process.stdout.readline()
        lock = make_lock()
        held = is_held(lock)
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert held
    assert not is_held(lock)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_does_not_let_go_of_its_parents_lock(make_lock):
    """
    A forked child closes what it has inherited, the parent still holds the lock, and the child waits like all others.
    """
    lock, other = make_lock(), make_lock()
    with lock.hold(0):
        said = in_child(lambda: (lock.close(), is_held(lock)))
        held = is_held(other)

    assert ("(None, True)", True) == (said, held)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_letting_go_counts_for_a_child_too(make_lock):
    """When its holder lets go, the lock is free, although a child that was just forked still has it open."""
    lock, other = make_lock(), make_lock()
    reading, writing = os.pipe()
    with lock.hold(0):
        child = os.fork()
        if child == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)
    held = is_held(other)
    os.close(writing)
    os.close(reading)
    os.waitpid(child, 0)

    assert not held
