"""
Which logs are served: names for paths, and never a path from a name.
"""

from __future__ import annotations

import errno
import os

import pytest

from sqlite_log_handler import UnreadableFileError
from sqlite_log_handler._read.logs import Logs, UnknownLogError


def test_files_go_by_their_names(tmp_path):
    """A file is served under its name, and the first one is meant when a request names none."""
    logs = Logs([tmp_path / "shop.db", str(tmp_path / "cart.db")])

    assert {"shop.db": str(tmp_path / "shop.db"), "cart.db": str(tmp_path / "cart.db")} == logs.by_name()
    assert str(tmp_path / "shop.db") == logs.path_of(None)
    assert str(tmp_path / "cart.db") == logs.path_of("cart.db")


def test_files_of_one_name_are_told_apart(tmp_path):
    """Two logs of one name in two folders have as much of their paths in their names as it takes."""
    paths = [tmp_path / "one" / "logs" / "app.db", tmp_path / "two" / "logs" / "app.db", tmp_path / "other.db"]

    assert ["one/logs/app.db", "two/logs/app.db", "other.db"] == list(Logs(paths).by_name())


def test_a_file_that_is_named_twice_is_served_once(tmp_path):
    """A log that is named by itself and by its folder is one log."""
    (tmp_path / "app.db").touch()

    assert ["app.db"] == list(Logs([tmp_path / "app.db", tmp_path]).by_name())


def test_a_folder_is_looked_at_anew(tmp_path):
    """Of a folder, the files ending in .db are served, also those that come later."""
    (tmp_path / "app.db-wal").touch()
    logs = Logs([tmp_path])
    assert [] == list(logs.by_name())

    (tmp_path / "b.db").touch()
    (tmp_path / "a.db").touch()
    (tmp_path / "folder.db").mkdir()

    assert ["a.db", "b.db"] == list(logs.by_name())


@pytest.mark.parametrize("name", ["../secret.db", "/etc/passwd", "", "app.db\x00", "APP.DB"])
def test_a_name_is_never_a_path(tmp_path, name):
    """What a request names is looked up among the logs that are served; it never becomes a path on the disk."""
    logs = Logs([tmp_path / "app.db"])

    with pytest.raises(UnknownLogError, match=r"choose from app\.db"):
        logs.path_of(name)


def test_nothing_to_serve(tmp_path):
    """Without a path there is nothing to serve, and an empty folder has no log yet."""
    with pytest.raises(ValueError, match="nothing to serve"):
        Logs([])
    with pytest.raises(UnknownLogError, match="no log here yet"):
        Logs([tmp_path]).path_of(None)


def test_paths_stay_where_they_were(tmp_path, monkeypatch):
    """A relative path is one of the folder in which the server was started."""
    monkeypatch.chdir(tmp_path)
    logs = Logs(["app.db"])
    monkeypatch.chdir(os.sep)

    assert str(tmp_path / "app.db") == logs.path_of("app.db")


def test_a_folder_with_a_file_that_cannot_be_seen(tmp_path):
    """A link that leads to itself is a log that cannot be read. It kept a folder's sound logs from being served."""
    (tmp_path / "app.db").touch()
    (tmp_path / "loop.db").symlink_to("loop.db")

    assert ["app.db", "loop.db"] == list(Logs([tmp_path]).by_name())


def test_a_folder_that_may_not_be_listed(tmp_path, monkeypatch):
    """A folder whose files may not be listed is an error with a name."""

    def refused(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UnreadableFileError, match=r"cannot be read: \[Errno 13\]"):
        Logs([tmp_path]).by_name()
