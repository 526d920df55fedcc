"""
The files of the archive: whose they are, and what the file system of the folder cannot do.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest
from archives import parts_in

from sqlite_log_handler._write.retention.archive import Archive

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import Log  # type: ignore[attr-defined]

    from sqlite_log_handler._logfile.forks import Connection


@pytest.fixture
def archive(log: Log, folder: Path) -> Iterator[Archive]:
    """The archive of the log."""
    archive = Archive(str(folder), log.path, kind="jsonl.gz", now=lambda: log.wall)

    yield archive

    archive.lock.close()


def archive_all(archive: Archive, log: Log, reading: Connection) -> list[str]:
    """Archive what there is; return the names of the parts."""
    with archive.lock.hold(0):
        return [part.name for part in archive.parts(reading) if archive.note(log.connection, part)]


@pytest.mark.skipif(not hasattr(os, "fchown"), reason="Windows has no owners")
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o640])
def test_the_archive_belongs_to_the_users_of_the_log(archive, log, reading, folder, monkeypatch, mode):
    """
    Parts and lock have the owner and the mode of the log, whatever the umask.

    When root ran `sqlite-log prune --archive`, as from cron, they were root's, and the program could not archive any
    more. So it was when one of two users of a group came first, and for everybody with a umask of 0777.
    """
    log.fill(10)
    os.chmod(log.path, mode)
    folder.chmod(0o770)
    status, owners = os.stat, []
    found = status(log.path)
    of_another_user = os.stat_result([*found[:4], found.st_uid + 1, *found[5:]])
    before = os.umask(0o777)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda: 0)
            patch.setattr(os, "stat", lambda name: of_another_user if name == log.path else status(name))
            patch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))
            names = archive_all(archive, log, reading)
    finally:
        os.umask(before)

    assert 2 * [(found.st_uid + 1, found.st_gid)] == owners
    assert [mode] * 2 == [os.stat(folder / name).st_mode & 0o777 for name in [*names, "app-log-archive-lock"]]


@pytest.mark.skipif(not hasattr(os, "fchown"), reason="Windows has no owners")
@pytest.mark.parametrize(
    ("of_link", "mode", "of_end", "is_given"),
    [
        (None, 0o755, 0, True),
        (None, 0o755, 7, False),
        (None, 0o775, 7, True),
        (0, 0o755, 0, True),
        (0, 0o755, 7, False),
        (0, 0o775, 0, False),
        (0, 0o1777, 0, False),
        (7, 0o755, 0, False),
    ],
)
def test_a_folder_that_another_user_may_have_put_there(
    log, reading, folder, monkeypatch, of_link, mode, of_end, is_given
):
    """
    In a folder where the users of the log may make no file, parts and lock are theirs only if no user could lead there.

    When root ran `sqlite-log prune --archive` on a log in the folder of another user, a link from there to a folder of
    the system got that user a lock of his own in it, into which he could write anything. When any link was taken for
    such a one, the parts behind one of the administrator's, as to a larger disk, could not be read by the users.
    """
    log.fill(10)
    os.chmod(log.path, 0o666)
    disk, links = folder / "disk", folder.with_name("links")
    end = disk / "logs" / "parts"
    end.mkdir(parents=True, mode=0o755)
    links.mkdir()
    (end if of_link is None else links).chmod(mode)
    link = links / "archive"
    link.symlink_to(os.path.relpath(end, links))
    status, real, owners = os.stat, os.lstat, []
    found = status(log.path)
    users = {found.st_ino: found.st_uid + 1, status(disk).st_ino: of_end, real(link).st_ino: of_link}

    def owned(one):
        return os.stat_result([*one[:4], users.get(one.st_ino, 0), *one[5:10]])

    archive = Archive(str(end if of_link is None else link), log.path, kind="jsonl.gz", now=lambda: log.wall)
    with monkeypatch.context() as patch:
        patch.setattr(os, "geteuid", lambda: 0)
        patch.setattr(os, "stat", lambda name: owned(status(name)))
        patch.setattr(os, "lstat", lambda name: owned(real(name)))
        patch.setattr(os, "fchown", lambda _, *owner: owners.append(owner))
        names = archive_all(archive, log, reading)
    archive.lock.close()

    assert 2 * [(found.st_uid + 1, found.st_gid)] * is_given == owners
    modes = [os.stat(end / name).st_mode & 0o777 for name in [*names, "app-log-archive-lock"]]
    assert 2 * [0o666 if is_given else 0o600] == modes


@pytest.mark.parametrize("call", ["fsync", "posix_fadvise"])
def test_a_file_system_that_cannot_do_all(archive, log, reading, folder, monkeypatch, call):
    """
    Where a folder cannot be synced, as one that a host shares with its virtual machine, rows are archived all the same.

    The archive failed with "Invalid argument", again and again. So it did on a system that takes no advice on files.
    """
    real = getattr(os, call, None)

    def refuse(descriptor: int, *arguments: int) -> None:
        if call == "fsync" and not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return real(descriptor, *arguments)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, call, refuse, raising=False)
    log.fill(10)

    assert archive_all(archive, log, reading) == parts_in(folder) != []


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folder")
def test_a_folder_that_cannot_be_synced(archive, log, reading, monkeypatch):
    """An error of the disk is one."""

    def fail(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    log.fill(10)
    with pytest.raises(OSError, match="Input/output error"):
        archive_all(archive, log, reading)
