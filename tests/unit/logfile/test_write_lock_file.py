"""
The file of the lock: whose it is, what becomes of it, and where a link leads.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from locked import is_held

from sqlite_log_handler._logfile import write_lock as write_lock_module
from sqlite_log_handler._logfile.write_lock import WriteLock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(write_lock_module.fcntl is None, reason="no flock on this system")


def test_a_number_that_another_file_has_now(make_lock, path):
    """
    A descriptor that was closed behind our back may be another file's by now: that one is left alone.

    A daemon closed all descriptors when the log was configured already. The lock's line was written over the first
    bytes of the file that got the lock's number.
    """
    lock, other = make_lock(), make_lock()
    with lock.hold(0):
        pass
    number = lock._descriptor
    os.close(number)
    precious = path.with_name("precious")
    precious.write_text("precious")
    descriptor = os.open(precious, os.O_RDWR)
    assert number == descriptor
    with lock.hold(0):
        assert is_held(other)
    lock.close()

    assert "precious" == precious.read_text()
    os.close(descriptor)  # it was not closed with the lock


def test_a_pipe_in_the_place_of_the_lock(make_lock):
    """A pipe of the lock's name is locked as a file would be, and opening it does not wait for a reader."""
    lock, other = make_lock(), make_lock()
    os.mkfifo(lock.path)
    with lock.hold(0):
        assert is_held(other)
    with other.hold(0):
        pass


def test_a_descriptor_that_was_closed(make_lock):
    """A lock whose descriptor was closed behind our back is opened again; closing it is no error either."""
    lock, other = make_lock(), make_lock()
    with lock.hold(0):
        pass
    os.close(lock._descriptor)
    with lock.hold(0):
        assert is_held(other)
    os.close(lock._descriptor)
    lock.close()

    assert not is_held(other)


@pytest.mark.parametrize("change", ["unlinked", "moved"])
def test_a_lock_that_was_taken_away(make_lock, path, change):
    """When its file was deleted, or moved along with the database, everybody agrees on the one that is made next."""
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
    """Who may write to the database may lock it, whatever the umask, and nobody else."""
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


@pytest.fixture
def of_another(path, monkeypatch):
    """Let the database be of another user and group: `of_another(mode)` returns them."""

    def of_another(mode):
        path.touch()
        path.chmod(mode)
        found = os.stat(path)
        changed = os.stat_result([*found[:4], found.st_uid + 1, found.st_gid + 1, *found[6:]])
        monkeypatch.setattr(os, "stat", lambda _: changed)
        return changed.st_uid, changed.st_gid

    return of_another


@pytest.mark.parametrize("is_root", [True, False])
def test_owner(make_lock, of_another, monkeypatch, is_root):
    """The lock belongs to whom the database belongs to: when root comes first, the program can lock it all the same."""
    user, group = of_another(0o600)
    owners = []
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 0 if is_root else 1)
        patch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))
        for _ in range(2):
            os.close(make_lock()._open())
    monkeypatch.undo()

    assert [(user if is_root else -1, group)] == owners


def test_an_owner_that_is_right_is_not_set(make_lock, path, monkeypatch):
    """
    Nothing is done about an owner that is the right one.

    `SystemCallFilter=~@privileged` of systemd kills a process that calls fchown.
    """
    path.touch()
    owners = []
    monkeypatch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))
    with make_lock().hold(0):
        pass

    assert [] == owners


@pytest.mark.parametrize(("mode", "expected"), [(0o664, 0o644), (0o660, 0o600), (0o666, 0o666)])
def test_another_group_gets_no_rights(make_lock, of_another, monkeypatch, mode, expected):
    """Where the lock cannot be given to the group of the database, a third group has the rights of all others."""
    of_another(mode)
    lock = make_lock()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fchown", _refused)
        os.close(lock._open())
    monkeypatch.undo()

    assert expected == os.stat(lock.path).st_mode & 0o777


def _refused(*_: object) -> None:
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def test_a_link_to_the_database(make_lock, path):
    """Who comes by a link takes the same lock as who comes by the name of the file."""
    link = path.with_name("link.db")
    link.symlink_to(path)
    lock = WriteLock(str(link))
    with make_lock().hold(0):
        assert is_held(lock)
    lock.close()

    assert not path.with_name("link.db-lock").exists()


@pytest.fixture
def link(path):
    """A link to the database `path`; `link.lead_to(other)` switches it."""

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
    """The lock of who comes by the link."""
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
    """Who does not get the lock to which the link leads now has none, and asks for that one the next time."""
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
    """A link that is switched again while its lock is waited for is followed again."""
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
    """When the folder to which a link has led is gone, the lock is looked for where it leads now."""
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
    """Where there are no locks, it is told all the same where the link leads."""
    by_link._missing = True
    with by_link.hold(0):
        link.lead_to(path.with_name("second.db"))
        assert str(path.with_name("second.db")) == by_link.follow(0)


def test_no_link_is_followed(make_lock, path):
    """A link that somebody has put in the place of the lock is an error, and what it leads to is left alone."""
    other = path.with_name("other")
    other.write_text("precious")
    path.with_name(path.name + "-lock").symlink_to(other)
    with pytest.raises(OSError, match="-lock"), make_lock().hold(0):
        pass

    assert "precious" == other.read_text()


def test_what_is_printed_does_not_go_into_the_file(path):
    """In a daemon that has closed its standard descriptors the lock takes none of their numbers."""
    program = (
        "import os, sys; from sqlite_log_handler._logfile.write_lock import WriteLock\n"
        "for number in range(3): os.close(number)\n"
        "lock = WriteLock(sys.argv[1])\n"
        "with lock.hold(0): os._exit(0 if lock._descriptor > 2 else 1)"
    )

    assert 0 == subprocess.call([sys.executable, "-c", program, str(path)])


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL])
def test_a_file_system_without_locks(make_lock, monkeypatch, error):
    """Where there are no locks it goes without, and says so once."""

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
    """What may pass (the system has no more locks, no more descriptors) is an error, to be tried again."""
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
    """Where Python has no `fcntl` (Windows) nothing is made and nothing is said."""
    monkeypatch.setattr(write_lock_module, "fcntl", None)
    with make_lock(say=pytest.fail).hold(0):
        pass

    assert [] == os.listdir(path.parent)
