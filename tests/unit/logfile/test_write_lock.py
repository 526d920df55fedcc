"""
The lock beside the file: who holds it, who waits, and what becomes of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from sqlite_log_handler._logfile import write_lock as write_lock_module
from sqlite_log_handler._logfile.write_lock import WriteLock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(write_lock_module.fcntl is None, reason="no flock on this system")


@pytest.fixture
def make_lock(path: Path) -> Iterator[Callable[..., WriteLock]]:
    """
    Make locks of the test's log, as handlers in several processes would.
    """
    made: list[WriteLock] = []

    def make(say: Callable[[str], None] = pytest.fail, path: Path = path) -> WriteLock:
        made.append(WriteLock(str(path), say=say))
        return made[-1]

    yield make

    for lock in made:
        lock.close()


def is_held(lock: WriteLock) -> bool:
    """
    Tell whether somebody else holds it.
    """
    try:
        with lock.hold(0):
            return False
    except TimeoutError:
        return True


def test_one_at_a_time(make_lock, path):
    """
    While one holds the lock nobody else gets it, and the error names the database.
    """
    first, second = make_lock(), make_lock()
    with first.hold(0), pytest.raises(TimeoutError, match=path.name), second.hold(0):
        pass

    assert not is_held(second)


def test_an_exception_lets_go(make_lock):
    """
    What is raised while the lock is held comes out, and the lock is free.
    """
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


def test_a_database_is_closed_under_the_lock_or_without_it(make_lock):
    """
    `hold_if_free` holds the lock if nobody else does; if another process has it, the block runs without it.
    """
    first, second = make_lock(), make_lock()
    with first.hold_if_free(0) as held:
        assert (True, True) == (held, is_held(second))
        with second.hold_if_free(0) as held_too:
            assert not held_too
        assert is_held(second)

    assert not is_held(second)


def test_what_is_raised_while_closing_comes_out(make_lock):
    """
    An error of the block is not taken for one of the lock, and the block runs once.
    """
    runs = []
    with pytest.raises(OSError, match="disk"), make_lock().hold_if_free(0):
        runs.append(1)
        message = "disk"
        raise OSError(message)

    assert [1] == runs


@pytest.fixture
def pauses(monkeypatch, clock) -> list[float]:
    """
    How long the lock slept each time; it sleeps on the fake clock.
    """
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.advance(seconds)

    monkeypatch.setattr(write_lock_module.time, "monotonic", clock)
    monkeypatch.setattr(write_lock_module.time, "sleep", sleep)
    return slept


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
    """
    What somebody else wrote into the lock's file costs nobody the lock.
    """
    lock = make_lock()
    with lock.hold(0):
        pass
    for text in ("", "not a line", "9 9 99999999999999999999 1\n"):
        path.with_name(path.name + "-lock").write_text(text)
        assert not is_held(lock)


def test_who_is_writing(make_lock, pauses):
    """
    Who waited in vain is told which process holds the lock.
    """
    first, second = make_lock(), make_lock()
    with first.hold(0), pytest.raises(TimeoutError, match=f"process {os.getpid()} is writing to"), second.hold(0):
        pass


def test_the_holder_is_written_when_it_changes(make_lock, monkeypatch, pauses):
    """
    Who has the lock again and again writes its name once, and again after somebody else had it.
    """
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
    """
    That nothing can be written into the lock's file is no reason not to have the lock.
    """

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(write_lock_module.os, "pwrite", full)
    first, second = make_lock(), make_lock()
    with first.hold(0):
        assert is_held(second)

    assert not is_held(second)


def test_it_goes_with_the_process_that_held_it(make_lock, path):
    """
    A process that is killed while it holds the lock leaves it free.
    """
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
        child = os.fork()
        if child == 0:
            lock.close()
            os._exit(0 if is_held(lock) else 1)
        _, status = os.waitpid(child, 0)
        held = is_held(other)

    assert (0, True) == (os.waitstatus_to_exitcode(status), held)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_letting_go_counts_for_a_child_too(make_lock):
    """
    When its holder lets go, the lock is free, although a child that was just forked still has it open.
    """
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


@pytest.mark.parametrize("change", ["unlinked", "moved"])
def test_a_lock_that_was_taken_away(make_lock, path, change):
    """
    When its file was deleted, or moved along with the database, everybody agrees on the one that is made next.
    """
    first, second = make_lock(), make_lock()
    with first.hold(0):
        pass
    if change == "unlinked":
        os.unlink(first.path)
    else:
        os.rename(first.path, f"{path}.1-lock")
    with second.hold(0):
        assert is_held(first)

    assert not is_held(first)


@pytest.mark.parametrize(("mode", "expected"), [(None, 0o600), (0o600, 0o600), (0o660, 0o660), (0o640, 0o640)])
def test_mode(make_lock, path, mode, expected):
    """
    Who may write to the database may lock it, whatever the umask, and nobody else.
    """
    if mode is not None:
        path.touch()
        path.chmod(mode)
    before = os.umask(0o077)
    try:
        lock = make_lock()
        with lock.hold(0):
            pass
    finally:
        os.umask(before)

    assert expected == os.stat(lock.path).st_mode & 0o777


def test_owner(make_lock, path, monkeypatch):
    """
    The lock belongs to whom the database belongs to: when root comes first, the program can lock it all the same.
    """
    path.touch()
    owners = []
    monkeypatch.setattr(write_lock_module.os, "fchown", lambda _, *owner: owners.append(owner))
    for _ in range(2):
        with make_lock().hold(0):
            pass

    assert [(path.stat().st_uid, path.stat().st_gid)] == owners


def test_who_may_not_give_it_away_has_it(make_lock, path, monkeypatch):
    """
    That the owner cannot be changed is no reason not to have the lock.
    """

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path.touch()
    path.chmod(0o660)
    monkeypatch.setattr(write_lock_module.os, "fchown", refused)
    lock = make_lock()
    with lock.hold(0):
        assert 0o660 == os.stat(lock.path).st_mode & 0o777


def test_a_link_to_the_database(make_lock, path):
    """
    Who comes by a link takes the same lock as who comes by the name of the file.
    """
    link = path.with_name("link.db")
    link.symlink_to(path)
    lock = WriteLock(str(link))
    with make_lock().hold(0):
        assert is_held(lock)
    lock.close()

    assert not path.with_name("link.db-lock").exists()


@pytest.fixture
def link(path):
    """
    A link to the database `path`; `link.lead_to(other)` switches it.
    """

    class Link(type(path)):
        def lead_to(self, other: Path) -> None:
            new = path.with_name("new link")
            new.symlink_to(other)
            new.replace(self)

    link = Link(path.with_name("link.db"))
    link.symlink_to(path)
    return link


@pytest.fixture
def by_link(link):
    """
    The lock of who comes by the link.
    """
    with contextlib.closing(WriteLock(str(link), say=pytest.fail)) as lock:
        yield lock


def test_the_lock_behind_a_switched_link(make_lock, path, link, by_link):
    """
    Who has come by a link holds the lock of the database that it left, until it goes over to that of the other one.

    The lock's path was fixed when it was made: with a link that was switched, two handlers held two locks at once.
    """
    first, second = make_lock(), make_lock(path=path.with_name("second.db"))
    with by_link.hold(0):
        link.lead_to(path.with_name("second.db"))
        assert [True, False] == [is_held(first), is_held(second)]
        inherited = os.dup(by_link._descriptor)  # by a child that was just forked
        assert str(path.with_name("second.db")) == by_link.follow(0)
        assert [False, True] == [is_held(first), is_held(second)]
        os.close(inherited)

    assert not is_held(second)


def test_a_switched_link_beside_a_writer(make_lock, path, link, by_link):
    """
    Who does not get the lock to which the link leads now has none, and asks for that one the next time.
    """
    first, second = make_lock(), make_lock(path=path.with_name("second.db"))
    with second.hold(0):
        with by_link.hold(0):
            link.lead_to(path.with_name("second.db"))
            with pytest.raises(TimeoutError):
                by_link.follow(0)
            assert not is_held(first)
        assert is_held(by_link)

    with by_link.hold(0):
        assert is_held(second)


def test_a_link_that_is_switched_meanwhile(make_lock, path, link, by_link, monkeypatch):
    """
    A link that is switched again while its lock is waited for is followed again.
    """
    real, last = write_lock_module.fcntl.flock, path.with_name("last.db")

    def switched(descriptor: int, operation: int) -> None:
        if operation & write_lock_module.fcntl.LOCK_EX:
            link.lead_to(last)
        real(descriptor, operation)

    with by_link.hold(0):
        link.lead_to(path.with_name("second.db"))
        with monkeypatch.context() as patch:
            patch.setattr(write_lock_module.fcntl, "flock", switched)
            assert str(last) == by_link.follow(0)
        assert is_held(make_lock(path=last))


def test_a_link_out_of_a_folder_that_is_gone(make_lock, path, link, by_link, pauses):
    """
    When the folder to which a link has led is gone, the lock is looked for where it leads now.
    """
    folder = path.with_name("folder")
    folder.mkdir()
    link.lead_to(folder / "log.db")
    with by_link.hold(0):
        pass
    link.lead_to(path)
    os.unlink(folder / "log.db-lock")
    folder.rmdir()

    with by_link.hold(0.05):
        assert is_held(make_lock())


def test_a_switched_link_without_flock(path, link, by_link):
    """
    Where there are no locks, it is told all the same where the link leads.
    """
    by_link._missing = True
    with by_link.hold(0):
        link.lead_to(path.with_name("second.db"))
        assert str(path.with_name("second.db")) == by_link.follow(0)


def test_no_link_is_followed(make_lock, path):
    """
    A link that somebody has put in the place of the lock is an error, and what it leads to is left alone.
    """
    other = path.with_name("other")
    other.write_text("precious")
    path.with_name(path.name + "-lock").symlink_to(other)
    with pytest.raises(OSError, match="-lock"), make_lock().hold(0):
        pass

    assert "precious" == other.read_text()


def test_what_is_printed_does_not_go_into_the_file(path):
    """
    In a daemon that has closed its standard descriptors the lock takes none of their numbers.
    """
    program = (
        "import os, sys; from sqlite_log_handler._logfile.write_lock import WriteLock\n"
        "for number in range(3): os.close(number)\n"
        "lock = WriteLock(sys.argv[1])\n"
        "with lock.hold(0): os._exit(0 if lock._descriptor > 2 else 1)"
    )

    assert 0 == subprocess.call([sys.executable, "-c", program, str(path)])


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks(make_lock, monkeypatch, error):
    """
    Where there are no locks it goes without, and says so once.
    """

    def flock(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(write_lock_module.fcntl, "flock", flock)
    said: list[str] = []
    lock = make_lock(say=said.append)
    for _ in range(3):
        with lock.hold(0):
            pass

    assert 1 == len(said)
    assert "no locks" in said[0]


def test_no_locks_left(make_lock, monkeypatch):
    """
    What may pass (the system has no more locks, no more descriptors) is an error, to be tried again.
    """
    real = write_lock_module.fcntl.flock
    failing = [True]

    def flock(*arguments: int) -> None:
        if failing and failing.pop():
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        real(*arguments)

    monkeypatch.setattr(write_lock_module.fcntl, "flock", flock)
    lock = make_lock()
    with pytest.raises(OSError, match="locks"), lock.hold(0):
        pass
    monkeypatch.undo()

    assert not is_held(lock)


def test_a_system_without_flock(make_lock, monkeypatch, path):
    """
    Where Python has no `fcntl` (Windows) nothing is made and nothing is said.
    """
    monkeypatch.setattr(write_lock_module, "fcntl", None)
    with make_lock(say=pytest.fail).hold(0):
        pass

    assert [] == os.listdir(path.parent)
