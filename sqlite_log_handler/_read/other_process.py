"""
Answer questions in another process, for servers: those with a regular expression, and all that an agent asks.

Python's `re` may need hours for one text, and keeps the GIL meanwhile: no other thread runs, not even the one that
handles Ctrl-C. On the main thread Ctrl-C ends it, so `LogReader` and the commands need none of this.

- The system ends the process when a question has used up its CPU time, also if our own process is gone by then.
- A process answers one question at a time. One that has answered waits for the next, because it takes 0.2 s to start.
- It ends when its standard input does, and so when our process ends in any way, even in the middle of a question: the
  system then sends it a signal, and `re` looks for signals.
- A few run at a time. Further questions wait for them, but not for long.
"""

import atexit
import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from sqlite_log_handler._read.filters import FilterError

_Answer = TypeVar("_Answer")

# CPU seconds for a question. To try an expression on a million rows takes 3.
SECONDS: Final = 60

# Most processes that wait for a question: as many as the page asks at a time. And most that answer one: each takes a
# core and some 30 MB.
_MOST_IDLE: Final = 2
_MOST: Final = 4
# Seconds that a question waits until one of the latter is done.
_PATIENCE: Final = 10
_PROGRAM: Final = f"from {__name__} import answer_all; answer_all()"


class NoProcessError(Exception):
    """There is no process for the question now; a later question may get one."""


class OtherProcess:
    """A process that answers questions. It raises a NoProcessError if there can be no other one."""

    def __init__(self) -> None:
        if hasattr(sys, "frozen"):  # its executable is the program, which would begin a second time
            message = "a frozen program cannot try an expression: search for a plain text, or on the command line"
            raise NoProcessError(message)
        path = os.pathsep.join(map(os.path.abspath, sys.path))
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-P", "-c", _PROGRAM],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C goes to all processes of a terminal's session
            )
        except OSError as error:
            raise NoProcessError(f"no process for the question can be started ({error}): ask again later") from error
        self._questions: Any = self._process.stdin
        self._answers: Any = self._process.stdout

    def ask(self, question: Callable[..., _Answer], *arguments: Any, seconds: float | None = None) -> _Answer:
        """
        Call a function in the process, and return or raise what it does. All of these must be picklable.

        If the process ends, because that takes more than `seconds` of CPU time (default: `SECONDS`) or `interrupt` is
        called, this raises a FilterError.
        """
        seconds = seconds or SECONDS
        try:
            pickle.dump((question, arguments, seconds), self._questions)
            self._questions.flush()
            answer, error = pickle.load(self._answers)  # noqa: S301 - from our own program
        except (EOFError, OSError, pickle.UnpicklingError) as broken:
            self.close()
            status = self._process.returncode
            message = f"the process for the question ended with status {status}: ask again"
            if status == -getattr(signal, "SIGPROF", 0):
                message = f"the question takes more than {seconds} s: ask for fewer rows, or with a simpler expression"
            raise FilterError(message) from broken
        except BaseException:
            self.close()  # or the next question would get the answer to this one
            raise
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]  # of `question`

    @property
    def is_running(self) -> bool:
        """Whether it can answer."""
        return self._process.poll() is None

    def interrupt(self) -> None:
        """End the process, and the question with it."""
        self._process.kill()

    def close(self) -> None:
        """End the process, and wait for its end."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._questions, self._answers):
            with contextlib.suppress(BrokenPipeError):  # what it did not read of a question
                pipe.close()


class _Pool:
    """The processes of this program, those that answer and those that wait for a question."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.idle: list[OtherProcess] = []
        self.busy: set[OtherProcess] = set()
        self.is_closed = False

    @contextlib.contextmanager
    def process(self) -> Iterator[OtherProcess]:
        """Yield a process that waits, or a new one, as soon as fewer than `_MOST` answer."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.is_closed or len(self.busy) < _MOST, _PATIENCE):
                message = f"{_MOST} such questions are being answered already: ask again when one of them is done"
                raise NoProcessError(message)
            if self.is_closed:
                raise NoProcessError("the program that answers is about to end")
            found = self._take_idle() or OtherProcess()
            self.busy.add(found)
        try:
            yield found
        finally:
            with self.changed:
                self.busy.remove(found)
                if found.is_running and not self.is_closed and len(self.idle) < _MOST_IDLE:
                    self.idle.append(found)
                else:
                    found.close()
                self.changed.notify()

    def _take_idle(self) -> OtherProcess | None:
        while self.idle:
            found = self.idle.pop()
            if found.is_running:
                return found
            found.close()
        return None

    def close(self) -> None:
        """End all processes, and with them the questions; each further question raises an error at once."""
        with self.changed:
            self.is_closed = True
            for process in self.busy:
                process.interrupt()
            for process in self.idle:
                process.close()
            self.idle.clear()
            self.changed.notify_all()


_pool = _Pool()


def other_process() -> contextlib.AbstractContextManager[OtherProcess]:
    """Yield a process that runs already, or a new one; raise a NoProcessError if there can be none."""
    return _pool.process()


def end_questions() -> None:
    """End all questions, those that wait for a process too, and refuse further ones: our own process is to end."""
    _pool.close()


def _forget() -> None:
    """Leave the processes to the parent, which they answer."""
    global _pool  # noqa: PLW0603 - another thread of the parent may hold the lock of the old one
    _pool = _Pool()


atexit.register(end_questions)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def answer_all() -> None:
    """Answer the questions that come on standard input, until it ends. This is what the process runs."""
    for name in ("SIGINT", "SIGPROF"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if fcntl is not None:
        signal.signal(signal.SIGIO, _end_with_input)
        fcntl.fcntl(sys.stdin, fcntl.F_SETOWN, os.getpid())
    warnings.simplefilter("ignore", FutureWarning)  # as the command line does, of expressions
    while True:
        try:
            question, arguments, seconds = pickle.load(sys.stdin.buffer)  # noqa: S301 - from our own program
        except EOFError:
            return
        _limit(seconds)
        answer: tuple[Any, Exception | None]
        try:
            answer = question(*arguments), None
        except Exception as error:  # noqa: BLE001 - the caller raises it
            answer = None, error
        _limit(0)
        pickle.dump(answer, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _end_with_input(*_: object) -> None:
    """End this process if its standard input has ended. The signal may come for the question itself, a little late."""
    if select.select([sys.stdin], [], [], 0)[0]:
        os._exit(0)


def _limit(seconds: float) -> None:
    """
    Have the system end this process after these seconds of CPU time, 0 for no limit, or at the end of standard input.

    Windows cannot do it. With 0, the process reads on: what comes on standard input then is the next question.
    """
    if fcntl is not None:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        fcntl.fcntl(sys.stdin, fcntl.F_SETFL, os.O_ASYNC if seconds else 0)
        if seconds:
            _end_with_input()  # it may have ended already
