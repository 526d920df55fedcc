"""
Text for a terminal: safe, in colours if the user wants them, and as wide as the terminal.

Commands print through `printable`, because strangers write into logs.
"""

import codecs
import contextlib
import io
import json
import os
import select
import shutil
import sys
import time
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import IO, Any, Final, TypeAlias, TypeVar

from sqlite_log_handler._logfile.printable import printable, without_joiners

# Gives a text the colour of its level.
Paint: TypeAlias = Callable[[str, int], str]

# Lines, and characters, in memory at a time.
LINES_AT_ONCE: Final = 1_000
_TEXT_AT_ONCE: Final = 256 * 1024

_Item = TypeVar("_Item")

_RESET: Final = "\x1b[0m"
# By the lowest level, as in journalctl and most loggers: grey, plain, yellow, red, bold red.
_COLOURS: Final = ((50, "\x1b[1;31m"), (40, "\x1b[31m"), (30, "\x1b[33m"), (20, ""), (0, "\x1b[2m"))


def write_line(line: str = "") -> None:
    """Make a line safe for a terminal, and print it at once."""
    write_lines([printable(line)])


def write_lines(lines: Iterable[str], file: IO[str] | None = None) -> int:
    """
    Write lines that are safe already, many at a time, and return how many: to `file`, or standard output.

    If an error ends them, all lines before it are written.
    """
    file = file or sys.stdout
    count = 0
    try:
        for some in batches(lines, len):
            count += len(some)
            text = "\n".join(some)
            some.clear()
            # A line may be long, and what is written at once is copied more than once.
            for at in range(0, len(text), _TEXT_AT_ONCE):
                file.write(text[at : at + _TEXT_AT_ONCE])
            file.write("\n")
            del text
    finally:
        file.flush()
    return count


def pause(seconds: float) -> None:
    """Wait; but raise `BrokenPipeError` when the reader of standard output has gone, as `tail -f` does."""
    if hasattr(select, "poll"):  # not on Windows
        poll = select.poll()
        poll.register(sys.stdout, 0)  # these two are always reported
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
            raise BrokenPipeError
    time.sleep(seconds)


def batches(
    items: Iterable[_Item], length: Callable[[_Item], int], most: int = LINES_AT_ONCE, text: int = _TEXT_AT_ONCE
) -> Iterator[list[_Item]]:
    """
    Yield items in lists of a bounded size: of `most` items, or until their lengths together come to `text`.

    Before an error comes through, the items before it are yielded.
    """
    some: list[_Item] = []
    left = text
    try:
        for item in items:
            some.append(item)
            left -= length(item)
            del item  # or it would be in memory while the next one is made
            if len(some) == most or left <= 0:
                yield some
                some, left = [], text
    except Exception:
        if some:
            yield some
        raise
    if some:
        yield some


def say(text: str, program: str = "sqlite-log") -> None:
    """Print a line for the operator to standard error."""
    write_error(f"{program}: {printable(text)}\n")


def write_error(text: str) -> None:
    """Write to standard error. If its disk is full or its reader gone, the text is lost, and the command goes on."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout.isatty()


def fit(line: str) -> str:
    """Cut a line of a table to the width of the terminal; elsewhere lines stay whole."""
    width = terminal_width()
    if not is_terminal() or width_of(line) <= width:
        return line
    return f"{line[: _fitting(line, width - 3)]}..."


def wrap(text: str, width: int, first: str, other: str) -> Iterator[str]:
    """Break a text into lines, at blanks if there are any; `first` and `other` are their indents."""
    # By places in the text: to look at the rest for each line takes time by the square of the length.
    at, indent = 0, first
    while (end := at + _fitting(text[at : at + 2 * width], width - len(indent))) < len(text):
        blank = text.rfind(" ", at + 1, end + 1)
        end = blank if blank > 0 else end
        yield indent + text[at:end]
        while text.startswith(" ", end):
            end += 1
        at, indent = end, other
    yield indent + text[at:]


def _fitting(text: str, width: int) -> int:
    """Return how many characters of a text take no more than `width` columns."""
    return bisect_right([*accumulate(map(width_of, text))], width)


def width_of(text: str) -> int:
    """Return how many columns a text takes: letters of Chinese and most emoji take two, and joiners none."""
    shown = without_joiners(text)
    return len(shown) + (not shown.isascii() and sum(unicodedata.east_asian_width(one) in "FW" for one in shown))


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lay out a table. Each column is as wide as its widest cell, and all but the last are aligned to the right."""
    widths = [max(map(width_of, cells)) for cells in [*zip(*rows, strict=True)][:-1]]
    for *cells, last in rows:
        line = "  ".join(" " * (width - width_of(cell)) + cell for cell, width in zip(cells, widths, strict=True))
        yield fit(f"{line}  {last}".rstrip())


def plain(text: str, levelno: int) -> str:  # noqa: ARG001 - takes what `coloured` takes
    """Return `text` unchanged."""
    return text


def coloured(text: str, levelno: int) -> str:
    """Return `text` in the colour of a level."""
    colour = next((colour for lowest, colour in _COLOURS if levelno >= lowest), "")
    return f"{colour}{text}{_RESET}" if colour else text


def painter(when: str) -> Paint:
    """
    Return the function that gives a text the colour of its level, `coloured` if `when` is `always`, and `plain` if it
    is `never`. By `auto`, NO_COLOR and FORCE_COLOR decide (https://no-color.org, https://force-color.org), and without
    them whether this is a terminal.
    """
    if when == "auto" and not os.environ.get("NO_COLOR"):
        can_show = is_terminal() and os.environ.get("TERM") != "dumb"
        return coloured if can_show or os.environ.get("FORCE_COLOR") else plain
    return coloured if when == "always" else plain


def terminal_width(most: int = 1_000) -> int:
    """Return how many columns to fill: those of the terminal, from 40 to `most`; 100 without one."""
    return min(max(shutil.get_terminal_size(fallback=(100, 24)).columns, 40), most)


def shows(characters: str) -> bool:
    """Tell whether the encoding of the output has these characters; we cannot ask the font."""
    with contextlib.suppress(UnicodeEncodeError, LookupError):
        characters.encode(sys.stdout.encoding or "ascii")
        return True
    return False


def prepare() -> bool:
    """
    Let standard output take any text: it gets an escape of JSON for each letter that its encoding does not have.

    Returns whether there is a standard output. After `>&-` in a shell, the next file that is opened gets its number, so
    C code that prints would write into the log.
    """
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for as long as the process lives
    if isinstance(sys.stdout, io.TextIOWrapper):
        codecs.register_error(_escape.__name__, _escape)
        sys.stdout.reconfigure(errors=_escape.__name__)
    return sys.stdout is not None


def _escape(error: Any) -> tuple[str, int]:
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
