"""`sqlite-log show`: the rows of a log, for people and for programs."""

import argparse
from typing import Final

from sqlite_log_handler._cli import arguments, cursor_file
from sqlite_log_handler._cli.arguments import add_flag
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.terminal import pause, write_lines
from sqlite_log_handler._cli.view import FORMATS, Selection, View
from sqlite_log_handler._read.filters import FilterError, Filters, up_to
from sqlite_log_handler._read.reader import LogReader, columns_of, followed, has_archive

_FOLLOWED: Final = 10
_AROUND: Final = 10


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    rows = arguments.at_least(0)
    newest = f"only the newest N, or all (with -f alone: {_FOLLOWED})"
    place = f"only the rows before and after this id or time, {_AROUND} each unless -C, -B or -A says otherwise"
    cursor = "show only what came since the last run with this file, which keeps the position"
    add_flag(parser, "-f, --follow", "show each new record, until Ctrl-C")
    add_flag(parser, "-n, --lines N", newest, type=arguments.count)
    add_flag(parser, "-C, --context N", "N rows before and after each one that matches", type=rows)
    add_flag(parser, "-B, --before-context N", "N rows before each one that matches", type=rows)
    add_flag(parser, "-A, --after-context N", "N rows after each one that matches", type=rows)
    add_flag(parser, "--around ID|TIME", place)
    add_flag(parser, "--fields KEY,...", "in the short formats, show these attributes behind the message", default="")
    add_flag(parser, "--id", "in the short formats, show the id of each row")
    add_flag(parser, "--gaps", "draw gaps even with filters that cannot apply to dropped records")
    add_flag(parser, "-r, --reverse", "the newest first")
    arguments.add_output(parser, FORMATS, ", ".join(FORMATS))
    arguments.add_color(parser)
    arguments.add_utc(parser)
    add_flag(parser, "--cursor-file PATH", cursor)
    arguments.add_filters(parser)


@command(
    _add_arguments,
    "Show the records of a log, the oldest first, and each gap where it is.",
    ("sqlite-log show app-log.db -n 20", "the newest 20"),
    ("sqlite-log show app-log.db -f", "the newest 10, and each new one"),
    ("sqlite-log app-log.db -p WARNING -S -1h", "warnings and above of the last hour"),
    ("sqlite-log app-log.db -l shop --exclude shop.cache", "a part of the hierarchy"),
    ("sqlite-log app-log.db -g 'timed? out|refused'", "by regular expression"),
    ("sqlite-log app-log.db --where 'status>=500' -C 3", "by attribute, with three rows before and after each"),
    ("sqlite-log app-log.db --run -1 -r -n 50", "the end of the last run but one, the newest first"),
)
def run(options: argparse.Namespace) -> int:
    """Show the rows. Returns 1 when none matched."""
    _require_sense(options)
    if options.cursor_file is not None:
        cursor_file.require_cursor_file(options.cursor_file)
    filters = arguments.filters_of(options)
    nothing = arguments.NO_RECORD
    with arguments.open_reader(options) as reader:
        if options.follow and has_archive(reader):
            raise FilterError("-f shows new records, and none comes to an archive: name the log's file alone")
        last_id = reader.last_id()
        if options.cursor_file is not None:
            cursor = cursor_file.read_cursor(options.cursor_file, reader, last_id)
            if cursor is not None:
                filters["after_id"] = begin = max(cursor, options.after_id or cursor)
                nothing = f"nothing new since id {begin}" + (" matches" if begin < last_id else "")
        filters = up_to(followed(reader, filters) if options.follow else filters, last_id)
        newest = None if options.lines == arguments.ALL else options.lines
        begins_elsewhere = (options.lines, options.since, options.after_id, options.cursor_file)
        if options.follow and {None} == {*begins_elsewhere}:
            newest = _FOLLOWED
        view = View(options)
        place = _place(reader, options, last_id) if options.around is not None else None
        write_lines(view.document(reader, Selection(filters, newest, *_context(options), place)))
        cursor_file.store_cursor(options.cursor_file, reader, last_id)
        if options.follow:
            for after_id, up_to_id in reader.additions(max(last_id, options.after_id or 0), wait=pause):
                added: Filters = {**filters, "after_id": after_id, "up_to_id": up_to_id}
                write_lines(view.lines(reader, Selection(added)))
                cursor_file.store_cursor(options.cursor_file, reader, up_to_id)
    return arguments.status_of(view.found, nothing)


def _require_sense(given: argparse.Namespace) -> None:
    """Refuse flags that contradict each other."""
    if given.follow and (given.reverse or given.output == "json"):
        message = "-f has no end, so it goes neither with -r nor with -o json; -o jsonl has an object on each line"
        raise FilterError(message)
    has_end = given.until or given.up_to_id is not None
    if given.follow and has_end:
        raise FilterError("-f shows new records, which -U and --up-to-id would leave out: give one of them")
    if given.follow and (any(_context(given)) or given.around):
        message = "-f shows new records, and the rows after them are not known yet: leave out -A, -B, -C and --around"
        raise FilterError(message)
    if given.cursor_file is not None and has_end:
        raise FilterError(
            "--cursor-file stores how far the log was read, so what -U and --up-to-id leave out would never be shown"
        )
    if given.around and (given.lines is not None or given.reverse or given.cursor_file is not None):
        message = "--around chooses rows by their place: it goes neither with -n nor with -r nor with --cursor-file"
        raise FilterError(message)


def _context(options: argparse.Namespace) -> tuple[int, int]:
    """Return how many rows to show before and after each match; -B and -A win over -C."""
    both = options.context if options.context is not None else _AROUND if options.around else 0
    before, after = options.before_context, options.after_context
    return both if before is None else before, both if after is None else after


def _place(reader: LogReader, options: argparse.Namespace, last_id: int) -> int:
    """Return the id that `--around` means: for a time, that of the first row at it or later."""
    text: str = options.around
    if text.isdecimal():
        return int(text)
    since = arguments.moment(text, arguments.present(utc=options.utc))
    return next((id_ for (id_,) in columns_of(reader, ["id"], since=since)), last_id + 1)
