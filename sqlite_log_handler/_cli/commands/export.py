"""`sqlite-log export`: rows for other programs, in constant memory."""

import argparse
import contextlib
import gzip
import importlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from sys import getsizeof
from typing import IO, Any, Final, cast

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.formats import json_safe
from sqlite_log_handler._cli.terminal import batches, is_terminal, write_lines
from sqlite_log_handler._logfile import parquet
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._read.filters import FilterError
from sqlite_log_handler._read.rows import Row

FORMATS: Final = ("jsonl", "csv", "parquet")

# Bytes of the longest row group. Parquet keeps 17 KB of each in memory to the end, so later ones have more rows: this
# part of those before.
_GROUP_BYTES: Final = 2 * 1024 * 1024
_GROUPS: Final = 200
# Bytes of a batch of large rows. What they take in memory on their way is given back to the system at once.
_LARGE_BYTES: Final = 128 * 1024

# A cell of CSV with one of these, or with a comma, stands in quotes.
_QUOTE: Final = '"'
_QUOTED: Final = re.compile(r'["\r\n]')


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_file(parser, archives=True)
    formats = f"{', '.join(FORMATS)} (default: by the output, or jsonl)"
    output = "the file to make, which must not exist yet; .gz and .zst are compressed (default: -, standard output)"
    arguments.add_flag(parser, "--format FORMAT", formats, choices=FORMATS)
    arguments.add_flag(parser, "--output PATH", output)
    parser.set_defaults(output="-")
    arguments.add_utc(parser)
    arguments.add_filters(parser)


@command(
    _add_arguments,
    "Write the columns of the view `logs`, a row for each record that matches. Memory does not grow with the log; "
    "Parquet needs 2 MB for each million rows, and pyarrow: pip install 'sqlite-log-handler[parquet]'.",
    ("sqlite-log export app-log.db --output app-log.jsonl.gz", "all of it, as JSON lines"),
    ("sqlite-log export app-log.db -S yesterday --output y.csv", "since yesterday"),
    ("sqlite-log export app-log.db --output app-log.parquet", "for pandas, Polars, DuckDB"),
)
def run(options: argparse.Namespace) -> int:
    """Write the rows. Returns 1 when none matched."""
    filters = arguments.filters_of(options)
    options.format = options.format or _format_of(options.output)
    if options.format == "parquet":
        with arguments.needs("parquet"):
            parquet.import_pyarrow()
        if options.output == "-" and is_terminal():
            raise FilterError("a terminal cannot show Parquet: name a file with --output")
        if options.output.lower().endswith((".gz", ".zst")):
            raise FilterError(f"{options.output!r}: Parquet is compressed already: name a file without .gz or .zst")
    with arguments.open_reader(options) as reader:
        # Before the file is made, because a filter that the reader refuses would leave an empty file behind.
        found: Iterator[Any] = (reader.json_lines if options.format == "jsonl" else reader.rows)(**filters)
        with _output(options.output, binary=options.format == "parquet") as file:
            if options.format == "jsonl":
                count = write_lines(map(json_safe, found), file)
            elif options.format == "csv":
                count = write_csv(found, file, safe=options.output == "-" and is_terminal())
            else:
                count = write_parquet(found, file)
    if not count and options.output != "-":
        # The file may have a CSV header, and would be in the way of the next run.
        os.remove(options.output)
    return arguments.status_of(count)


def _format_of(path: str) -> str:
    """Tell the format by the name of the file."""
    name = path.lower().removesuffix(".gz").removesuffix(".zst")
    return next((form for form in FORMATS if name.endswith(f".{form}")), "jsonl")


@contextlib.contextmanager
def _output(path: str, *, binary: bool) -> Iterator[IO[Any]]:
    """Open the output. A file that exists is left alone."""
    if path == "-":
        if isinstance(sys.stdout, io.TextIOWrapper) and not is_terminal():
            # As a file is, because an escape in CSV cannot be told from text.
            sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")
        file: IO[Any] = sys.stdout.buffer if binary else sys.stdout
        yield file
        file.flush()
        return
    if os.path.lexists(path):
        raise FileExistsError(f"{path!r} exists: name a file that does not exist yet")
    arguments.require_folder(path)
    with _signals_raise(), arguments.written_to(path):
        opened = _opener_of(path)(path, "xb")
        try:
            with opened as raw:
                if binary:
                    yield raw
                else:
                    with io.TextIOWrapper(raw, encoding="utf-8", errors="backslashreplace", newline="") as file:
                        yield file
        except BaseException:  # a signal too: half of the rows would look like all
            os.remove(path)
            raise


@contextlib.contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise inside the `with` block, as SIGINT does; after it they end this program."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    is_main = threading.current_thread() is threading.main_thread()
    # Not one that is ignored, as by nohup.
    mine = [number for number in numbers if is_main and signal.getsignal(number) is signal.SIG_DFL]
    came: list[int] = []

    def end(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)
        for number in came:
            signal.raise_signal(number)


def _opener_of(path: str) -> Callable[[str, Any], Any]:
    """Return the function that opens a file, and compresses if the name says so."""
    if path.lower().endswith(".gz"):
        return gzip.open
    if path.lower().endswith(".zst"):
        for module in ("compression.zstd", "backports.zstd"):  # Python has the first from 3.14 on
            with contextlib.suppress(ImportError):
                return cast("Callable[[str, Any], Any]", importlib.import_module(module).open)
        raise FilterError(
            f"{path!r}: Python before 3.14 has no zstd: pip install backports.zstd, or name a file that ends in .gz"
        )
    return open


def _memory(row: Row) -> int:
    return sum(map(getsizeof, row))


def write_csv(rows: Iterable[Row], file: IO[str], *, safe: bool = False) -> int:
    """
    Write CSV with a header (RFC 4180, but lines end in LF), and return how many rows.

    The `csv` module takes twice as long, and leaves a lone CR unquoted, at which its own reader ends the row. With
    `safe`, what a terminal would obey is escaped.
    """
    file.write(",".join(Row._fields) + "\n")
    commas = len(Row._fields) - 1
    count = 0
    for batch in batches(rows, _memory):
        lines = []
        for row in batch:
            cells = ["" if cell is None else cell if isinstance(cell, str) else str(cell) for cell in row]
            if safe:
                cells = [*map(printable, cells)]
            line = ",".join(cells)
            # One look at the whole line, because half of the lines have nothing to quote.
            if line.count(",") != commas or _QUOTED.search(line):
                line = ",".join(
                    f'"{cell.replace(_QUOTE, _QUOTE * 2)}"' if _QUOTED.search(cell) or "," in cell else cell
                    for cell in cells
                )
            lines.append(line)
        file.write("\n".join(lines) + "\n")
        count += len(batch)
    return count


def write_parquet(rows: Iterable[Row], file: IO[bytes]) -> int:
    """Write Parquet, with `time` as a timestamp, and return how many rows."""
    pa, _ = parquet.import_pyarrow()
    schema = parquet.schema_of(Row._fields)
    count = 0

    def share(batch: Any) -> int:
        """Return the part of a row group that a batch fills, by its bytes or its rows, as bytes."""
        rows: int = batch.num_rows
        return max(int(batch.nbytes), rows * _GROUP_BYTES // max(parquet.GROUP_ROWS, count // _GROUPS))

    with parquet.writer(file, schema) as writer:
        for group in batches(_record_batches(rows, schema), share, sys.maxsize, _GROUP_BYTES):
            table = pa.Table.from_batches(group)
            count += table.num_rows
            writer.write_table(table, row_group_size=table.num_rows)
            # What is freed between groups would be kept, and grow.
            del table
            group.clear()
            pa.system_memory_pool().release_unused()
    return count


def _record_batches(rows: Iterable[Row], schema: Any) -> Iterator[Any]:
    pa, _ = parquet.import_pyarrow()
    time, created = Row._fields.index("time"), Row._fields.index("created_us")
    for batch in batches(rows, _memory):
        columns = list(zip(*batch, strict=True))
        batch.clear()  # or the rows would stay in memory beside the columns made of them
        columns[time] = columns[created]
        made = parquet.batch_of(columns, schema)
        if made.nbytes > _LARGE_BYTES:
            del columns
            pa.system_memory_pool().release_unused()
        yield made
