"""Why we cannot write to a file as a log, or read it as one: one error for each condition."""

from __future__ import annotations


class LogFileError(Exception):
    """
    We cannot use the file at the path as a log, and have not changed it.

    This is the base of the errors below, each of which names a condition.
    """


class ForeignFileError(LogFileError):
    """The file exists and is not a log of this package: choose another `filename`, or move that file away."""


class NewerSchemaError(LogFileError):
    """A newer sqlite-log-handler made the file: upgrade the package."""


class MissingFileError(LogFileError, FileNotFoundError):
    """There is no file at the path."""


class EmptyFileError(ForeignFileError):
    """The file is an empty database: no handler has written to it yet."""


class UnreadableFileError(LogFileError):
    """We may not read the file, or only if we could write to its folder; or it is a pipe, a device or a folder."""


class BusyFileError(LogFileError):
    """Another process keeps the file locked: try again when it has finished."""


class CorruptFileError(LogFileError):
    """The file is a log of this package, and damaged."""


class LimitError(LogFileError):
    """A question takes more steps than on any log, or the file holds a larger value than any log."""
