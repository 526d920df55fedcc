"""
`sqlite-log show`: the rows of a log, for people and for programs.
"""

import argparse
from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeVar

from sqlite_log_handler._cli import arguments, cursor_file
from sqlite_log_handler._cli.command import Command
from sqlite_log_handler._cli.formats import (
    CLOCKS,
    Cat,
    Clock,
    Format,
    Logfmt,
    Short,
    Verbose,
    json_safe,
    with_gaps,
)
from sqlite_log_handler._cli.terminal import painter, write_lines
from sqlite_log_handler._read.filters import HIGHEST, FilterError, Filters
from sqlite_log_handler._read.reader import LogReader, columns_of, followed

FORMATS: Final = ("short", "short-iso", "short-precise", "verbose", "json", "jsonl", "cat", "logfmt")
_FOLLOWED: Final = 10

_Entry = TypeVar("_Entry")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with each record that comes, until Ctrl-C")
    parser.add_argument(
        "-n",
        "--lines",
        type=arguments.count,
        metavar="N",
        help=f"only the newest N, or all (with -f: {_FOLLOWED} by default)",
    )
    parser.add_argument("-r", "--reverse", action="store_true", help="the newest first")
    parser.add_argument(
        "-o",
        "--output",
        choices=FORMATS,
        default="short",
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)} (default: short)",
    )
    arguments.add_utc(parser)
    parser.add_argument(
        "--cursor-file",
        metavar="PATH",
        help="go on behind what was read the last time, and keep there how far that was",
    )
    arguments.add_filters(parser)


def run(options: argparse.Namespace) -> int:
    """
    Show the rows. Returns 1 when none matched.

    Raises:
        FilterError: Flags that contradict each other, or one that cannot be understood.
        LogFileError: The log cannot be read.
    """
    if options.follow and (options.reverse or options.output == "json"):
        message = "-f has no end, so it goes neither with -r nor with -o json; -o jsonl has an object on each line"
        raise FilterError(message)
    if options.follow and options.until:
        message = "-f shows what is still to come, which -U would leave out: give one of them"
        raise FilterError(message)
    if options.cursor_file is not None and options.until:
        message = "--cursor-file keeps how far the log was read, and -U would leave out what is never read again"
        raise FilterError(message)
    if options.cursor_file is not None:
        cursor_file.require_cursor_file(options.cursor_file)
    filters = arguments.filters_of(options)
    nothing = "no record matches; `sqlite-log stats` shows what there is"
    with arguments.open_reader(options) as reader:
        last_id = reader.last_id()
        if options.cursor_file is not None and options.after_id is None:
            cursor = filters["after_id"] = cursor_file.read_cursor(options.cursor_file, reader, last_id)
            if cursor is not None:
                nothing = f"nothing new since id {cursor}" + (" matches" if cursor < last_id else "")
        filters["up_to_id"] = last_id
        newest = None if options.lines == arguments.ALL else options.lines
        if options.follow and options.lines is None and options.since is None and filters.get("after_id") is None:
            newest = _FOLLOWED
        view = View(options)
        write_lines(view.document(reader, filters, newest))
        cursor_file.keep_cursor(options.cursor_file, reader, last_id)
        if options.follow:
            filters = followed(reader, filters)
            for after_id, up_to_id in reader.additions(max(last_id, options.after_id or 0)):
                added: Filters = {**filters, "after_id": after_id, "up_to_id": up_to_id}
                write_lines(view.lines(reader, added, None))
                cursor_file.keep_cursor(options.cursor_file, reader, up_to_id)
    return arguments.status_of(view.found, nothing)


class View:
    """
    Rows in the format that is asked for. `found` tells whether there were any.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.found = False
        self._reverse: bool = options.reverse
        # What is shown now is all; otherwise a gap behind the last row goes before the row that comes next.
        self._ends: bool = not options.follow and options.cursor_file is None
        self._is_document: bool = options.output == "json"
        self._format = format_of(options)

    def document(self, reader: LogReader, filters: Filters, newest: int | None) -> Iterator[str]:
        """
        Yield all there is, as the format wants it: JSON as one array.
        """
        lines = self.lines(reader, filters, newest)
        if not self._is_document:
            yield from lines
            return
        before = "["
        for line in lines:
            yield before
            before = f"{line},"
        yield f"{before[:-1]}\n]" if self.found else "[]"

    def lines(self, reader: LogReader, filters: Filters, newest: int | None) -> Iterator[str]:
        """
        Yield the text of each row that matches, and of each gap.
        """
        if self._format is None:
            json_lines = reader.json_lines(newest=newest, reverse=self._reverse, **filters)
            return map(json_safe, self._noticed(json_lines))
        rows = columns_of(reader, self._format.columns, newest=newest, reverse=self._reverse, **filters)
        entries: Iterator[Any] = self._noticed(rows)
        if self._format.draws_gaps:
            ledger = filters
            if self._ends:
                last_id = filters.get("up_to_id")
                ledger = {**filters, "up_to_id": last_id + 1 if last_id and last_id < HIGHEST else None}
            gaps = reader.gaps(**ledger)
            entries = with_gaps(entries, gaps, reverse=self._reverse, whole=newest is None)
        return self._format.lines(entries)

    def _noticed(self, rows: Iterable[_Entry]) -> Iterator[_Entry]:
        """
        Yield the rows, and remember whether there were any.
        """
        for row in rows:
            self.found = True
            yield row
            # The others at the speed of C.
            yield from rows


def format_of(options: argparse.Namespace) -> Format | None:
    """
    Return the format that is asked for; None for JSON, which SQLite makes.
    """
    name: str = options.output
    iso = Clock("%Y-%m-%dT%H:%M:%S%z", digits=6, utc=options.utc)
    if name in CLOCKS:
        return Short(CLOCKS[name](options.utc), painter())
    others: dict[str, Format] = {"verbose": Verbose(iso, painter()), "logfmt": Logfmt(iso), "cat": Cat()}
    return others.get(name)


COMMAND: Final = Command(
    name="show",
    description="Show the records of a log, the oldest first, and each gap where it is.",
    examples=[
        ("sqlite-log show app-log.db -n 20", "the newest 20"),
        ("sqlite-log show app-log.db -f", "the newest 10, and each one that comes"),
        ("sqlite-log app-log.db -p WARNING -S -1h", "warnings and above of the last hour"),
        ("sqlite-log app-log.db -l shop --exclude shop.cache", "a part of the hierarchy"),
        ("sqlite-log app-log.db -g 'timed? out|refused'", "by regular expression"),
        ("sqlite-log app-log.db --where customer=c-17 -o verbose", "by attribute, with all there is to them"),
        ("sqlite-log app-log.db --run -1 -r -n 50", "the end of the last run but one, the newest first"),
    ],
    add_arguments=_add_arguments,
    run=run,
)
