"""
The handler's options: what is refused, and how the error says so.
"""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import os
import socket
import sys
from pathlib import Path

import pytest

from sqlite_log_handler import SQLiteHandler


def handler_list():
    """Return the handlers that logging will flush and close at exit; they stay while this list does."""
    references = list(logging._handlerList)  # type: ignore[attr-defined]
    return [handler for reference in references if (handler := reference()) is not None]


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("capacity", 0, ValueError),
        ("capacity", "10", TypeError),
        ("capacity", True, TypeError),
        ("capacity", 1.5, TypeError),
        ("capacity_bytes", 65_535, ValueError),
        ("max_age", "7 dogs", ValueError),
        ("max_age", 0, ValueError),
        ("max_age", [7], TypeError),
        ("max_rows", 0, ValueError),
        ("max_rows", "10", TypeError),
        ("max_bytes", "1MB", ValueError),
        ("max_bytes", "500", ValueError),
        ("max_bytes", 1e9, TypeError),
        ("max_record_bytes", 1_023, ValueError),
        ("max_record_bytes", 524_289, ValueError),
        ("reserve", -0.1, ValueError),
        ("reserve", 1.0, ValueError),
        ("reserve", float("nan"), ValueError),
        ("reserve_level", "LOUD", ValueError),
        ("reserve_level", None, TypeError),
        ("batch_size", 0, ValueError),
        ("flush_interval", 0, ValueError),
        ("flush_interval", 3601, ValueError),
        ("flush_interval", "fast", TypeError),
        ("flush_interval", True, TypeError),
        ("flush_level", 1.5, TypeError),
        ("flush_level", True, TypeError),
        ("close_timeout", -1, ValueError),
        ("close_timeout", float("inf"), ValueError),
        ("level", "LOUD", ValueError),
        ("level", [], TypeError),
    ],
)
def test_wrong_options_are_refused(path, option, value, error):
    """A wrong option raises with its name and value, before anything is on disk or known to logging."""
    known = handler_list()

    with pytest.raises(error, match=option) as caught:
        SQLiteHandler(path, **{option: value})

    assert repr(value) in str(caught.value)
    assert known == handler_list()
    assert not path.exists()


def test_unknown_options_are_refused(path):
    """A misspelt option is a TypeError, as with any function."""
    with pytest.raises(TypeError, match="capasity"):
        SQLiteHandler(path, capasity=1)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["", ":memory:", "file:app-log.db", "file:x?mode=memory", "app\0log.db"])
def test_names_that_are_no_path_are_refused(name, tmp_path, monkeypatch):
    """What SQLite takes for something else than a file would not be kept: the error says so."""
    monkeypatch.chdir(tmp_path)

    with pytest.raises(ValueError, match="must be the path of a file"):
        SQLiteHandler(name)

    assert [] == os.listdir(tmp_path)


def test_a_filename_is_a_path():
    """Anything but str and PathLike is a TypeError that names the option."""
    with pytest.raises(TypeError, match="filename=3"):
        SQLiteHandler(3)  # type: ignore[arg-type]


def test_a_missing_folder_is_said(tmp_path):
    """The error names the folder to create."""
    with pytest.raises(FileNotFoundError, match="create it first"):
        SQLiteHandler(tmp_path / "logs" / "app-log.db")


@pytest.mark.parametrize("name", ["~/app-log.db", "~root/app-log.db"])
def test_a_tilde_is_not_expanded(name, tmp_path, monkeypatch):
    """
    A path that begins with a tilde is told how to become one; the error used to advise to create a folder named `~`.
    """
    monkeypatch.chdir(tmp_path)

    with pytest.raises(FileNotFoundError, match=rf"'~' is not expanded: use os.path.expanduser\('{name}'\)"):
        SQLiteHandler(name)

    (tmp_path / "~").mkdir()
    SQLiteHandler("~/app-log.db").close()
    assert (tmp_path / "~" / "app-log.db").exists()


def test_a_directory_is_refused(tmp_path):
    """A directory is no file."""
    with pytest.raises(IsADirectoryError, match="add the name of a file"):
        SQLiteHandler(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no devices among its files")
@pytest.mark.parametrize("kind", ["device", "link to a device", "pipe", "socket"])
def test_what_is_no_regular_file_is_refused(path, kind, monkeypatch):
    """
    A device, a pipe and a socket can hold no log: the error names the path, and nothing is made beside it.

    SQLite refused them, when the lock, and beside a device a journal, had been made already.
    """
    monkeypatch.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as unbound:
        if kind == "device":
            path = Path(os.devnull)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            unbound.bind(path.name)  # by its short name: the path may be longer than a socket's may be
        else:
            path.symlink_to(os.devnull)
        before = beside(path)
        with pytest.raises(ValueError, match=f"{path}.*is a device, a pipe or a socket"):
            SQLiteHandler(path)

    assert before == beside(path)


def beside(path):
    """Name what is, or is called, after `path`: in /dev, others come and go."""
    return sorted(name for name in os.listdir(path.parent) if path.name in name)
