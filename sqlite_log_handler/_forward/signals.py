"""
End the program soon after SIGINT or SIGTERM, but never in the middle of its own work.

A signal ends the program at once while it waits for the receiver or the clock, or makes a request from rows, which
leaves nothing behind; otherwise when it does so next.
Each request runs on a thread of its own. Only so can the program leave a look-up of a name while the network is down,
and give a deadline to a receiver that sends one byte now and then.
"""

import contextlib
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

# How long to wait after a signal for the answer to the last request, which the next run need then not send again.
_GRACE_SECONDS = 0.25

T = TypeVar("T")


class Stopped(BaseException):
    """A signal asked the program to end."""


def in_thread(call: Callable[[], T]) -> Future[T]:
    """Make a call on a thread of its own, which does not keep the process from ending; return its future."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the thread that waits raises it
            future.set_exception(error)

    try:
        threading.Thread(target=run, daemon=True).start()
    except RuntimeError:  # none can be started, as at the limit of a container: then a signal waits for the call
        run()
    return future


class Signals:
    """Turns SIGINT and SIGTERM into `Stopped` inside a `with` block."""

    def __init__(self) -> None:
        self._asked = False  # a signal came
        self._interruptible = False  # the program waits, or computes something
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
        if self._interruptible:
            # Once: a second signal must not break into what the first one has set going.
            self._interruptible = False
            raise Stopped

    def run(self, call: Callable[[], T]) -> T:
        """Return the result of a call that only waits or computes; raise `Stopped` if a signal comes."""
        self._interruptible = True
        try:
            if self._asked:
                raise Stopped
            return call()
        finally:
            self._interruptible = False

    def run_in_thread(self, call: Callable[[], T], timeout: float) -> T:
        """
        Make a call on another thread and return its result. After a signal, abandon the thread unless it ends soon.

        Raises:
            Stopped: A signal came.
            TimeoutError: No result came within `timeout` seconds.
        """
        if self._asked:
            raise Stopped
        future = in_thread(call)
        try:
            return self.run(lambda: future.result(timeout))
        except Stopped:
            with contextlib.suppress(TimeoutError):
                return future.result(_GRACE_SECONDS)
            raise
