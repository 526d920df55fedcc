"""
`sqlite-log forward`: send rows to a receiver until none are left or a signal comes.

`run` imports the modules that need the packages of the extra `otlp`, so that `--help` does not.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING

from sqlite_log_handler import __version__
from sqlite_log_handler._cli.arguments import add_flag, at_least, needs
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.terminal import say
from sqlite_log_handler._forward.delivery import Answer, Counts, Delivery, GivenUpError
from sqlite_log_handler._forward.signals import Signals, Stopped, in_thread
from sqlite_log_handler._forward.spool import Spool
from sqlite_log_handler._logfile.units import counted
from sqlite_log_handler._read.filters import require_short
from sqlite_log_handler._write.operator import takes_more

if TYPE_CHECKING:
    from sqlite_log_handler._forward.receiver import Receiver

# For all files together, because a signal has to end the command within a second.
_CLOSE_SECONDS = 0.25


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a log")
    url = "the receiver; an address without a path gets /v1/logs (default: the environment's, or http://localhost:4318)"
    compression = "of requests (default: the environment's, or gzip)"
    retry = "how long the receiver may be away before this gives up; for ever with --follow"
    add_flag(parser, "--otlp URL", url)
    add_flag(parser, "-f, --follow", "go on for ever, and send new rows as they come")
    add_flag(parser, "--name NAME", "name of the cursor in the log (default: the address of the receiver)")
    add_flag(parser, "--service NAME", "service.name (default: the program that logged)")
    add_flag(parser, "--compression {gzip,none}", compression, choices=("gzip", "none"))
    rows = at_least(1, sys.maxsize - 1)  # one more is asked for, and SQLite takes no larger number
    add_flag(parser, "--batch-rows N", "most rows in a request", type=rows, default=8_000)
    bytes_ = "most bytes in a request, before compression"
    add_flag(parser, "--batch-bytes N", bytes_, type=at_least(1_024), default=4 * 1024 * 1024)
    add_flag(parser, "--retry-seconds N", retry, type=at_least(0), default=60)


@command(
    _add_arguments,
    "Send the rows of logs to a receiver of OTLP over HTTP, while programs log into them. The log itself keeps the "
    "position, so the next run goes on there, however this one ended. The environment variables OTEL_EXPORTER_OTLP_*, "
    "OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the settings without a flag.",
    ("sqlite-log forward app-log.db --otlp http://localhost:4318", "all rows that were not sent yet"),
    ("sqlite-log forward a.db b.db --otlp http://localhost:4318 -f", "two logs, and each row that comes"),
)
def run(options: argparse.Namespace) -> int:
    """Send the rows. Returns 1 when it gave up, a file was moved, or the receiver did not take every row."""
    with needs("otlp"):
        from sqlite_log_handler._forward import otlp  # noqa: PLC0415 - only this needs their packages
        from sqlite_log_handler._forward.receiver import Receiver, endpoint_from  # noqa: PLC0415 - the same
    endpoint = endpoint_from(os.environ, url=options.otlp, compression=options.compression)
    require_short("--name", options.name)
    attributes = otlp.environment_attributes(os.environ, options.service)
    missing = [file for file in options.files if not os.path.isfile(file)]
    if any("://" in file for file in missing):
        # The message leaves it out, because it may hold a password.
        raise ValueError("an address stands in the place of a file: write --otlp in front of it")
    if missing and not options.follow:
        message = f"{missing[0]!r} is not a file: name the file of a SQLiteHandler, or wait for it with -f"
        raise FileNotFoundError(message)
    if hasattr(os, "nice") and os.nice(0) == 0:
        # The program that logs comes first: on two busy cores, it keeps 0.93 of its rate with this, and 0.76 without.
        os.nice(10)
    receiver = Receiver(endpoint, f"sqlite-log-handler/{__version__}")
    paths = dict.fromkeys(map(os.path.abspath, options.files))
    spools = [Spool(path, options.name or endpoint.name, say=_say) for path in paths]
    has_given_up = False
    with Signals() as signals:
        delivery = Delivery(
            spools=spools,
            encode=lambda batch, rows: signals.run(lambda: otlp.encode(batch, rows, attributes)),
            send=lambda body: _send(signals, receiver, body, endpoint.timeout),
            clock=time.monotonic,
            wait=lambda seconds: signals.run(lambda: time.sleep(seconds)),
            say=_say,
            follow=options.follow,
            batch_rows=options.batch_rows,
            batch_bytes=options.batch_bytes,
            retry_seconds=options.retry_seconds,
            receiver=f"the receiver {endpoint.name}",
        )
        try:
            delivery.run()
        except Stopped:
            pass
        except GivenUpError as error:
            _say(str(error))
            has_given_up = True
        finally:
            _end(spools, signals)
            receiver.close()
            _say(_summary(delivery.counts, endpoint.name))
    has_left = not options.follow and any(spool.was_left for spool in spools)
    return int(has_given_up or has_left or delivery.counts.rejected > 0 or delivery.counts.refused > 0)


def _say(text: str) -> None:
    """Print a line, unless standard error is a full pipe that nobody reads: rows go on, and a signal ends us."""
    if takes_more(sys.stderr):
        say(text)


def _end(spools: Sequence[Spool], signals: Signals) -> Future[None]:
    """
    Close the logs. After a signal, leave those that take too long to the end of the process, as a kill does.

    The last to close a log writes its WAL back, which a slow disk holds up. Else the next process to open it does.
    """
    # The thread keeps the others open until then: freed by Python, they would be written back without our lock.
    closing = in_thread(lambda: _close(spools, time.monotonic))
    try:
        signals.run(closing.result)
    except Stopped:
        wait([closing], _CLOSE_SECONDS)
    return closing


def _close(spools: Sequence[Spool], clock: Callable[[], float]) -> None:
    deadline = clock() + _CLOSE_SECONDS
    # Those that were moved first: their WAL stays behind, and SQLite would apply it to the next file at the path.
    for spool in sorted(spools, key=lambda spool: not spool.is_moved):
        spool.close(max(0, deadline - clock()))


def _send(signals: Signals, receiver: "Receiver", body: bytes, timeout: float) -> Answer:
    try:
        return signals.run_in_thread(lambda: receiver(body), timeout)
    except TimeoutError:
        return receiver.give_up()


def _summary(counts: Counts, name: str) -> str:
    line = f"{counted(counts.sent, 'row')} sent to {name} in {counted(counts.requests, 'request')}"
    for number, what in (
        (counts.rejected, "of them rejected by the receiver"),
        (counts.refused, "refused by the receiver"),
        (counts.pruned, "pruned before they were sent"),
    ):
        if number:
            line += f"; {number:,} {what}"
    return line
