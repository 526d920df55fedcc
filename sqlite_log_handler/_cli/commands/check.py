"""`sqlite-log check`: say whether a file is a log, whether it is sound, and whether its books agree."""

import argparse
import contextlib
import os
import zlib
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import Final, NamedTuple

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.formats import json_document
from sqlite_log_handler._cli.terminal import write_line, write_lines
from sqlite_log_handler._logfile.archive import PartName, part_names, stem_of
from sqlite_log_handler._logfile.columns import text, whole
from sqlite_log_handler._logfile.errors import CorruptFileError, LogFileError, MissingFileError
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import USER_VERSION
from sqlite_log_handler._logfile.units import counted
from sqlite_log_handler._read.filters import FilterError
from sqlite_log_handler._read.parts import Part, require_part
from sqlite_log_handler._read.scan import Scan
from sqlite_log_handler._read.statistics import Books
from sqlite_log_handler._write.retention.archiver import folder_of

# The most findings to print; SQLite itself stops at a hundred.
_MOST: Final = 10

_BLOCK: Final = 1024 * 1024


class Finding(NamedTuple):
    """One line of the result: `ok`, `WRONG`, or `-` where we cannot tell, and the text beside it."""

    verdict: str
    text: str


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser)
    arguments.add_flag(parser, "--archive DIR", "check the archive in this folder too")
    arguments.add_json(parser)


@command(
    _add_arguments,
    "Check that the file is a log of this package, that SQLite finds nothing wrong with it, and that the counts in "
    "different places agree. It only reads. While SQLite reads through the file, the WAL of a program that logs into "
    "it grows.",
    ("sqlite-log check app-log.db", "says ok or what is wrong, a line for each"),
    ("sqlite-log check /srv/archive", "reads each file of an archive, and the log if it is there too"),
    ("sqlite-log check app-log.db --archive /srv/archive", "compares each file of the archive with its note"),
    (
        "sqlite-log check a.db && sqlite3 a.db \"VACUUM INTO '/backup/a.db'\"",
        "the exit status is 0 when all of it is ok",
    ),
)
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
    """Check the file, then its books and its archive; or an archive alone."""
    if options.archive is not None:
        folder_of("--archive", options.archive)
    if _is_archive(options):
        yield from _sum_up(_read_parts(options.archive), "can be read")
        yield Finding("-", "whether parts are missing stands in the log: name its file, and the folder with --archive")
        return
    try:
        with arguments.open_reader(options) as reader:
            yield Finding("ok", f"a log of sqlite-log-handler, schema {reader.schema} of {USER_VERSION}")
            wrong, _ = yield from _first(split_faults(reader.check()))
            if wrong:
                yield Finding("-", "the books cannot be compared in a damaged file")
                return
            yield Finding("ok", "SQLite's integrity check")
            yield from compare(reader.books())
            if options.archive is not None:
                yield from _sum_up(_compare_parts(reader.path, options.archive), "as noted")
    except CorruptFileError as error:
        # The text of the error names this command; its cause has SQLite's text.
        yield Finding("WRONG", str(error.__cause__ or error))
        yield Finding("-", "not all of it can be read: `.recover` of the sqlite3 shell saves what it can")


def _is_archive(options: argparse.Namespace) -> bool:
    """Tell whether only an archive is to be checked. Of a folder with a log in it, that is to be checked too."""
    path = arguments.file_of(options)
    stems = {part.stem for part in part_names(path)} if os.path.isdir(path) else None
    if not stems:
        return False
    options.archive = options.archive or path
    logs = [name for name in os.listdir(path) if stem_of(name) in stems and PartName.parse(name) is None]
    if len(logs) > 1:
        raise FilterError(f"{path!r} has several logs: name one of them, and the folder with --archive")
    options.file = os.path.join(path, logs[0]) if logs else path
    return not logs


def _first(faults: Iterable[str | int]) -> Generator[Finding, None, tuple[int, list[int]]]:
    """Yield the first faults, each at once, and how many more there are. Returns their number, and the other items."""
    wrong, others = 0, list[int]()
    for fault in faults:
        if isinstance(fault, int):
            others.append(fault)
            continue
        wrong += 1
        if wrong <= _MOST:
            yield Finding("WRONG", fault)
    if wrong > _MOST:
        yield Finding("WRONG", f"and {wrong - _MOST:,} more")
    return wrong, others


def _sum_up(parts: Iterable[str | int], are: str) -> Iterator[Finding]:
    """Sum up the parts of an archive, for each of which there is a fault or the number of its rows."""
    wrong, rows = yield from _first(parts)
    what = f"{len(rows):,} of {counted(len(rows) + wrong, 'part')} {are}, {counted(sum(rows), 'row')}"
    yield Finding("-" if wrong else "ok", f"the archive: {what}")


def _read_parts(folder: str) -> Iterator[str | int]:
    """Read each part of an archive to its end, and yield its number of rows, or its fault."""
    for name in part_names(folder):
        try:
            part = Part.open(os.path.join(folder, str(name)))
            part.read_through()
            yield part.head.rows
        except MissingFileError:  # since the look at the folder: only the log tells whether it should be there
            continue
        except LogFileError as error:
            yield str(error)


def split_faults(faults: Iterable[str]) -> list[str]:
    """Return the faults one by one: SQLite puts up to a hundred into one text, below a line for the database."""
    lines = [line for fault in faults for line in fault.splitlines() if line]
    return [line for line in lines if not line.startswith("*** in database")] or lines


def compare(books: Books) -> Iterator[Finding]:
    """Compare the counts of different places. Once rows were pruned, a difference may be right: `-`."""
    ledger, rows = books.dropped_in_ledger, books.rows + books.warnings + books.pruned
    pairs = (
        ("dropped: the ledger, and the volume", ledger, books.dropped_in_volume),
        (f"dropped: the ledger, and {books.warnings:,} drop warnings", ledger, books.dropped_in_warnings),
        ("written: rows, drop warnings and pruned rows, and the volume", rows, books.written_in_volume),
    )
    for what, one, other in pairs:
        verdict = "ok" if one == other else "-" if books.pruned else "WRONG"
        note = " (pruned rows cannot be compared)" if verdict == "-" else ""
        yield Finding(verdict, f"{what}: {one:,} and {other:,}{note}")
    here = books.archived + books.unmoved + books.unarchived + books.expired
    last = "" if books.written_ever == books.last_id else f", and the last id is {books.last_id:,}"
    yield Finding(
        "ok" if here == books.written_ever == books.last_id else "WRONG",
        f"seen, {counted(books.written_ever + books.dropped_ever, 'record')}: {books.archived:,} in the archive, "
        f"{books.unmoved:,} in the file alone, {books.unarchived:,} deleted without an archive, "
        f"{books.expired:,} deleted from the archive, {books.dropped_ever:,} dropped; "
        f"{here + books.dropped_ever:,} in all{last}",
    )


_PARTS: Final = f"""
SELECT id, {text("name")}, {whole("first_id")}, {whole("last_id")}, {whole("bytes")}, {whole("crc32")}
FROM archives ORDER BY id
"""  # noqa: S608 - our own names

_MISSING: Final = "it is missing"


def _compare_parts(path: str, folder: str) -> Iterator[str | int]:
    """Compare each part of the archive with its note, which was made when the part was read back and counted."""
    with contextlib.closing(Scan(path)) as scan:
        parts = scan.all(_PARTS)
        log_id = scan.one("SELECT log_id FROM marks")
    for id_, name, first_id, last_id, *noted in parts:
        fault = _fault_of(folder, name, (log_id, first_id, last_id), noted)
        if fault == _MISSING and not _is_noted(path, id_):
            continue  # a limit has removed the part since: first its note, and then its file
        yield f"{printable(name)}, rows {first_id} to {last_id}: {fault}" if fault else last_id - first_id + 1


def _is_noted(path: str, id_: int) -> bool:
    with contextlib.closing(Scan(path)) as scan:
        return bool(scan.one("SELECT count(*) FROM archives WHERE id = ?", (id_,)))


def _fault_of(folder: str, name: str, head: tuple[str, int, int], noted: list[int]) -> str | None:
    """Return the fault of a part, None if it has none. The log names it, and may be a stranger's."""
    if PartName.parse(name) is None:
        return "no part of an archive has this name"
    path = os.path.join(folder, name)
    try:
        require_part(path)
        with open(path, "rb") as file:
            size = crc32 = 0
            for block in iter(partial(file.read, _BLOCK), b""):
                if size > noted[0]:
                    break
                size, crc32 = size + len(block), zlib.crc32(block, crc32)
        if [size, crc32] != noted:
            return "it was changed since it was archived"
        found = Part.open(path).head
    except (MissingFileError, FileNotFoundError):
        return _MISSING
    except (OSError, LogFileError) as error:
        # Of Parquet, without the extra, the sums agree.
        return None if isinstance(error.__cause__, ImportError) else str(error)
    return None if (found.log_id, found.first_id, found.last_id) == head else "it has other rows than noted"
