"""
Why a file cannot be written as a log, or read as one: one error for each condition.
"""


class LogFileError(Exception):
    """
    The file at the path cannot be used as a log. An existing file was left alone.

    Base of the errors that name the condition, for those who want to catch all of them.
    """


class ForeignFileError(LogFileError):
    """The file exists and is not a log of this package: choose another `filename`, or move that file away."""


class NewerSchemaError(LogFileError):
    """The file was written by a newer sqlite-log-handler than this one: upgrade the package."""


class MissingFileError(LogFileError, FileNotFoundError):
    """There is no file at the path."""


class EmptyFileError(ForeignFileError):
    """The file is an empty database: no log was written to it yet."""


class UnreadableFileError(LogFileError):
    """We may not read the file, or only if we could write to its folder."""


class BusyFileError(LogFileError):
    """Another process keeps the file locked: try again when it has finished."""


class CorruptFileError(LogFileError):
    """The file is a log of this package, and damaged."""


class LimitError(LogFileError):
    """The file asks for more steps, or holds a larger value, than any log does."""
