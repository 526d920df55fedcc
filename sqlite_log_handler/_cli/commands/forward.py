"""
The command `forward`: options and environment in, rows out to a receiver, until there are no more or a signal comes.

What needs the packages of the extra `otlp` is imported when the command runs.

A signal is answered at once while this waits for something outside, the receiver or the clock, and otherwise when the
cursor has been saved. The request that is under way runs on a thread of its own, because nothing else ends the look-up
of a name when the network is down.
"""

import argparse
import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Self

from sqlite_log_handler._cli.arguments import at_least
from sqlite_log_handler._cli.command import Command
from sqlite_log_handler._cli.terminal import say

if TYPE_CHECKING:
    from sqlite_log_handler._forward.delivery import Answer, Counts

_MISSING = "forward needs more packages ({error}): pip install 'sqlite-log-handler[otlp]'"

# After a signal, for the answer to what was sent: it saves the next run to send it again.
_GRACE_SECONDS = 0.5


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a log")
    parser.add_argument(
        "--otlp",
        metavar="URL",
        help="the receiver; an address without a path gets /v1/logs (default: the environment's, or "
        "http://localhost:4318)",
    )
    parser.add_argument("-f", "--follow", action="store_true", help="go on for ever, and send new rows as they come")
    parser.add_argument("--name", help="name of the cursor in the log (default: the address of the receiver)")
    parser.add_argument("--service", metavar="NAME", help="service.name (default: the program that logged)")
    parser.add_argument(
        "--compression", choices=("gzip", "none"), help="of requests (default: the environment's, or gzip)"
    )
    parser.add_argument(
        "--batch-rows", type=at_least(1), default=8_000, metavar="N", help="most rows in a request (default: 8000)"
    )
    parser.add_argument(
        "--batch-bytes",
        type=at_least(1_024),
        default=4 * 1024 * 1024,
        metavar="N",
        help="most bytes in a request, before compression (default: 4194304)",
    )
    parser.add_argument(
        "--retry-seconds",
        type=at_least(0),
        default=60,
        metavar="N",
        help="how long the receiver may be away before this gives up; for ever with --follow (default: 60)",
    )


def run(options: argparse.Namespace) -> int:
    """
    Run the command, and return its exit status.

    0: everything was sent, or a signal has ended it. 1: it was given up, or the receiver did not take every row. 2: a
    package is missing.

    Raises:
        LogFileError, OSError, ValueError: An argument or a setting is wrong, or a file cannot be used.
    """
    try:
        from sqlite_log_handler._forward import otlp  # noqa: PLC0415 - only this command needs what they need
        from sqlite_log_handler._forward.receiver import Receiver, endpoint_from  # noqa: PLC0415
    except ModuleNotFoundError as error:
        say(_MISSING.format(error=error))
        return 2
    from importlib.metadata import version  # noqa: PLC0415 - nor this: it takes as long as all the others

    from sqlite_log_handler._forward.delivery import Delivery, GivenUpError  # noqa: PLC0415 - nor does another need this
    from sqlite_log_handler._forward.spool import Spool  # noqa: PLC0415

    endpoint = endpoint_from(os.environ, url=options.otlp, compression=options.compression)
    attributes = otlp.environment_attributes(os.environ, options.service)
    missing = [file for file in options.files if not os.path.isfile(file)]
    if missing and not options.follow:
        raise FileNotFoundError(f"{missing[0]!r} is no file: name the file of a SQLiteHandler, or wait for it with -f")
    if hasattr(os, "nice") and os.nice(0) == 0:
        # The program that logs comes first: on two busy cores it keeps 0.93 of its rate beside this, and 0.76 without.
        os.nice(10)
    receiver = Receiver(endpoint, f"sqlite-log-handler/{version('sqlite-log-handler')}")
    paths = dict.fromkeys(map(os.path.abspath, options.files))
    spools = [Spool(path, options.name or endpoint.name, say=say) for path in paths]
    status = 0
    with _Signals() as signals:
        delivery = Delivery(
            spools=spools,
            encode=otlp.Encoder(attributes),
            send=lambda body: signals.aside(receiver, body),
            clock=time.monotonic,
            wait=signals.wait,
            say=say,
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
            say(str(error))
            status = 1
        finally:
            for spool in spools:
                spool.close()
            say(_summary(delivery.counts, endpoint.name))
    if status == 0 and (delivery.counts.rejected or delivery.counts.refused):
        status = 1
    return status


def _summary(counts: "Counts", name: str) -> str:
    line = f"{counts.sent} rows sent to {name} in {counts.requests} requests"
    for number, what in (
        (counts.rejected, "of them rejected by the receiver"),
        (counts.refused, "refused by the receiver"),
        (counts.pruned, "pruned before they were sent"),
    ):
        if number:
            line += f"; {number} {what}"
    return line


class Stopped(BaseException):
    """
    A signal asks for the end.
    """


class _Signals:
    """
    Turn SIGINT and SIGTERM into `Stopped`, raised where nothing is half done.
    """

    def __init__(self) -> None:
        self._asked = False
        self._outside = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, _number: int, _frame: object) -> None:
        self._asked = True
        if self._outside:
            raise Stopped

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        self._outside = True
        try:
            if self._asked:
                raise Stopped
            yield
        finally:
            self._outside = False

    def wait(self, seconds: float) -> None:
        """
        Wait, or raise Stopped.
        """
        with self._interruptible():
            time.sleep(seconds)

    def aside(self, send: "Callable[[bytes], Answer]", body: bytes) -> "Answer":
        """
        Call `send` on a thread of its own, and leave it there when a signal comes and no answer does soon.
        """
        if self._asked:
            raise Stopped
        answers: queue.SimpleQueue[Answer | BaseException] = queue.SimpleQueue()

        def ask() -> None:
            try:
                answers.put(send(body))
            except BaseException as error:  # noqa: BLE001 - for who waits, and would wait for ever
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            with self._interruptible():
                answer = answers.get()
        except Stopped:
            try:
                answer = answers.get(timeout=_GRACE_SECONDS)
            except queue.Empty:
                raise Stopped from None
        if isinstance(answer, BaseException):
            raise answer
        return answer


COMMAND: Final = Command(
    name="forward",
    description="Send the rows of logs to a receiver of OTLP over HTTP, while programs log into them. The log "
    "itself keeps how far this has come, so the next run goes on there, however this one ended. Settings that have "
    "no flag come from the environment variables OTEL_EXPORTER_OTLP_*, OTEL_SERVICE_NAME and "
    "OTEL_RESOURCE_ATTRIBUTES.",
    examples=[
        ("sqlite-log forward app-log.db --otlp http://localhost:4318", "all rows that were not sent yet"),
        ("sqlite-log forward a.db b.db --otlp http://localhost:4318 -f", "two logs, and each row that comes"),
    ],
    add_arguments=_add_arguments,
    run=run,
)
