"""
`sqlite-log show`: the rows of a log, for people and for programs.
"""

import argparse
from collections.abc import Iterator
from typing import Final

from sqlite_log_handler._cli import arguments, cursor_file
from sqlite_log_handler._cli.command import Command
from sqlite_log_handler._cli.formats import CLOCKS, Clock, Format, Logfmt, Short, Verbose, cat, json_safe, with_gaps
from sqlite_log_handler._cli.terminal import painter, write_lines
from sqlite_log_handler._read.filters import HIGHEST, FilterError, Filters
from sqlite_log_handler._read.reader import LogReader, followed
from sqlite_log_handler._read.rows import Row

FORMATS: Final = ("short", "short-iso", "short-precise", "verbose", "json", "jsonl", "cat", "logfmt")
_FOLLOWED: Final = 10


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
    return arguments.status_of(view.rows, nothing)


class View:
    """
    Rows in the format that is asked for. `rows` counts them.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.rows = 0
        self._reverse: bool = options.reverse
        # What is shown now is all; otherwise a gap behind the last row goes before the row that comes next.
        self._ends: bool = not options.follow and options.cursor_file is None
        self._name: str = options.output
        self._format: Format | None = None
        iso = Clock("%Y-%m-%dT%H:%M:%S%z", digits=6, utc=options.utc)
        if self._name in CLOCKS:
            self._format = Short(CLOCKS[self._name](options.utc), painter())
        elif self._name == "verbose":
            self._format = Verbose(iso, painter())
        elif self._name == "logfmt":
            self._format = Logfmt(iso)
        elif self._name == "cat":
            self._format = cat

    def document(self, reader: LogReader, filters: Filters, newest: int | None) -> Iterator[str]:
        """
        Yield all there is, as the format wants it: JSON as one array.
        """
        lines = self.lines(reader, filters, newest)
        if self._name != "json":
            yield from lines
            return
        before = "["
        for line in lines:
            yield before
            before = f"{line},"
        yield f"{before[:-1]}\n]" if self.rows else "[]"

    def lines(self, reader: LogReader, filters: Filters, newest: int | None) -> Iterator[str]:
        """
        Yield the text of each row that matches, and of each gap.
        """
        if self._format is None:
            for line in reader.json_lines(newest=newest, reverse=self._reverse, **filters):
                self.rows += 1
                yield json_safe(line)
            return
        rows = reader.rows(newest=newest, reverse=self._reverse, **filters)
        if not isinstance(self._format, Short | Verbose):
            for row in rows:
                self.rows += 1
                yield from self._format(row)
            return
        ledger = filters
        if self._ends:
            last_id = filters.get("up_to_id")
            ledger = {**filters, "up_to_id": last_id + 1 if last_id and last_id < HIGHEST else None}
        for entry in with_gaps(rows, reader.gaps(**ledger), reverse=self._reverse, whole=newest is None):
            if isinstance(entry, Row):
                self.rows += 1
                yield from self._format(entry)
            else:
                yield self._format.gap(entry)


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
