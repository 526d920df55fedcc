"""
`sqlite-log check`: say whether a file is a log, whether it is sound, and whether its books agree.
"""

import argparse
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import Command
from sqlite_log_handler._cli.formats import json_document
from sqlite_log_handler._cli.terminal import write_line, write_lines
from sqlite_log_handler._logfile.errors import CorruptFileError
from sqlite_log_handler._logfile.schema import USER_VERSION
from sqlite_log_handler._read.statistics import Books

# The most findings to print; SQLite itself stops at a hundred.
_MOST: Final = 10


class Finding(NamedTuple):
    """One line of the result: `ok`, `WRONG`, or `-` where we cannot tell, and the text beside it."""

    verdict: str
    text: str


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser)
    arguments.add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Print all findings. Returns 1 when one of them is WRONG."""
    seen: list[Finding] = []
    for finding in findings(options):
        seen.append(finding)
        if options.output == "text":  # at once, because checking a large file takes a while
            write_line(f"{finding.verdict:<5}  {finding.text}")
    is_wrong = any(finding.verdict == "WRONG" for finding in seen)
    if options.output == "json":
        write_lines(json_document({"ok": not is_wrong, "verdicts": [finding._asdict() for finding in seen]}))
    return int(is_wrong)


def findings(options: argparse.Namespace) -> Iterator[Finding]:
    """Check the file, then its books."""
    try:
        with arguments.open_reader(options) as reader:
            yield Finding("ok", f"a log of sqlite-log-handler, schema {reader.schema} of {USER_VERSION}")
            faults = split_faults(reader.check())
            yield from (Finding("WRONG", fault) for fault in faults[:_MOST])
            if len(faults) > _MOST:
                yield Finding("WRONG", f"and {len(faults) - _MOST:,} more")
            if faults:
                yield Finding("-", "the books cannot be compared in a damaged file")
                return
            yield Finding("ok", "SQLite's integrity check")
            yield from compare(reader.books())
    except CorruptFileError as error:
        # The text of the error names this command; its cause has SQLite's text.
        yield Finding("WRONG", str(error.__cause__ or error))
        yield Finding("-", "not all of it can be read: `.recover` of the sqlite3 shell saves what it can")


def split_faults(faults: Iterable[str]) -> list[str]:
    """Return the faults one by one: SQLite puts up to a hundred into one text, below a line for the database."""
    lines = [line for fault in faults for line in fault.splitlines() if line]
    return [line for line in lines if not line.startswith("*** in database")] or lines


def compare(books: Books) -> Iterator[Finding]:
    """Compare the counts of different places. Once rows were pruned, a difference may be right: `-`."""
    ledger = books.dropped_in_ledger
    pairs = (
        ("dropped: the ledger, and the volume", ledger, books.dropped_in_volume),
        (f"dropped: the ledger, and {books.warnings:,} drop warnings", ledger, books.dropped_in_warnings),
        (
            "written: rows, drop warnings and pruned rows, and the volume",
            books.rows + books.warnings + books.pruned,
            books.written_in_volume,
        ),
    )
    for text, one, other in pairs:
        verdict = "ok" if one == other else "-" if books.pruned else "WRONG"
        note = " (pruned rows cannot be compared)" if verdict == "-" else ""
        yield Finding(verdict, f"{text}: {one:,} and {other:,}{note}")


COMMAND: Final = Command(
    name="check",
    description="Check that the file is a log of this package, that SQLite finds nothing wrong with it, and that "
    "the counts in different places agree. It only reads. While SQLite reads through the file, the WAL of a program "
    "that logs into it grows.",
    examples=[
        ("sqlite-log check app-log.db", "says ok or what is wrong, a line for each"),
        ("sqlite-log check app-log.db && cp app-log.db /backup/", "the exit status is 0 when all of it is ok"),
    ],
    add_arguments=_add_arguments,
    run=run,
)
