"""
SIGINT and SIGTERM for a program that waits for others: they end it soon, and where nothing is half done.

A signal is answered at once while the program waits for something outside, the receiver or the clock, and otherwise at
the next such wait. A request runs on a thread of its own, because nothing else ends the look-up of a name when the
network is down, and nothing else gives it a deadline: a receiver can send a byte now and then for ever.
"""

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

# After a signal, for the answer to what was sent: it saves the next run to send it again.
_GRACE_SECONDS = 0.25

T = TypeVar("T")


class Stopped(BaseException):
    """
    A signal asks for the end.
    """


class Signals:
    """
    Turns SIGINT and SIGTERM into `Stopped` for the time of a `with` block.
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

    def aside(self, call: Callable[[], T], timeout: float) -> T:
        """
        Call on a thread of its own, which is left there when a signal comes and no result does soon.

        Raises:
            Stopped: A signal came.
            TimeoutError: There was no result within `timeout` seconds.
        """
        if self._asked:
            raise Stopped
        results: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                results.put((call(), None))
            except BaseException as error:  # noqa: BLE001 - for the thread that waits, and would wait for ever
                results.put((None, error))

        threading.Thread(target=run, daemon=True).start()
        try:
            with self._interruptible():
                result, error = results.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
        except Stopped:
            try:
                result, error = results.get(timeout=_GRACE_SECONDS)
            except queue.Empty:
                raise Stopped from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # None is a result too
