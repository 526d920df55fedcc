"""
`flush` and `close` of a listener that is driven by hand.
"""

from __future__ import annotations

import threading

import pytest
from listeners import INFO, Impatient, numbers, put, stuck

from sqlite_log_handler._logfile.locks import LOGGING_LOCK


def test_flush_writes_what_is_queued(make):
    """`flush` commits on the caller's thread, as many batches as it takes, and says that it did."""
    listener = make(batch_size=3)
    put(listener, 8)

    assert listener.flush()

    assert (list(range(8)), 3) == (numbers(listener), listener.committer.writer.commits)


@pytest.mark.parametrize("timeout", [1e10, float("inf")])
def test_flush_takes_any_timeout(make, timeout):
    """A program may wait for ever: no lock takes a timeout of more than some hundred years."""
    listener = make()
    put(listener, 3)

    assert listener.flush(timeout=timeout)

    assert [0, 1, 2] == numbers(listener)


def test_flush_gives_up_in_time(make, clock):
    """`flush` returns False when its time is over, and what it could not write is still queued."""
    listener = make()
    put(listener, 3)
    listener.committer.writer.error = OSError("disk")
    began = clock()

    assert not listener.flush(timeout=2.0)

    assert pytest.approx(2.0) == clock() - began
    assert 3 == listener.queue.queued


def test_flush_does_not_wait_for_room(make, clock):
    """
    While a reader pinned the WAL, `flush` waited all its time for the gap of what had no room, and said that it had
    failed, with nothing queued. There may be no room for days: the gap is written when there is.
    """
    listener = make()
    listener.committer.writer.full = "full"
    put(listener, 3)
    began = clock()

    assert listener.flush(timeout=2.0)
    assert listener.flush(timeout=2.0)
    listener.committer.drop_report.make(listener.committer.now())
    assert listener.flush(timeout=2.0)

    assert (began, 0, 0) == (clock(), listener.queue.queued, len(listener.committer.writer.gaps))
    listener.committer.writer.full, listener.committer.writer.error = None, OSError("disk")
    assert not listener.flush(timeout=2.0)
    listener.committer.writer.error = None
    assert listener.flush(timeout=2.0)
    assert [3] == [gap.count for gap in listener.committer.writer.gaps]


def test_flush_waits_for_rows_where_gaps_have_no_room(make):
    """While another thread is in a commit, rows wait, and `flush` says so: only gaps are not waited for."""
    listener = make()
    listener.committer.writer.full = "full"
    put(listener, 3)
    assert listener.flush(timeout=2.0)
    put(listener, 1)

    with listener.committer.lock._lock:
        assert not listener.flush(0)


def test_flush_tries_once_without_time(make):
    """`flush(0)` makes one attempt."""
    listener = make()
    put(listener, 3)

    assert listener.flush(0)
    assert 0 == listener.queue.queued


def test_flush_ends_in_time_though_every_commit_succeeds(make, clock):
    """On a disk that is slow, and never fails, `flush` returns when its time is over: the rest is still queued."""
    listener = make(batch_size=2)
    put(listener, 8)
    listener.committer.writer.before = lambda _: clock.advance(1)

    assert not listener.flush(timeout=2.0)
    assert ([0, 1, 2, 3], 4) == (numbers(listener), listener.queue.queued)


def test_flush_does_not_wait_for_later_rows(make):
    """What is logged during a flush is not its business: a busy program cannot keep it for ever."""
    listener = make(batch_size=2)
    put(listener, 2)
    listener.committer.writer.before = lambda _: put(listener, 1)

    assert listener.flush()
    assert 1 == listener.committer.writer.commits
    listener.committer.writer.before = lambda _: None


def test_flush_waits_for_a_commit_of_another_thread(make):
    """Rows that another thread is writing are written when `flush` returns."""
    listener = make()
    put(listener, 2)
    with stuck(listener):
        threading.Timer(0, listener.committer.writer.gate.set).start()
        assert listener.flush()

    assert [0, 1] == numbers(listener)


def test_close_writes_everything_and_reports(make, warnings):
    """`close` writes the queue, sends the last warning, stores it, and closes the file."""
    listener = make(capacity=3)
    put(listener, 5)

    listener.close()

    assert ([0, 1, 2], 1) == (numbers(listener), listener.committer.writer.closed)
    assert [2] == [record.dropped for record in warnings]
    assert 1 == len(listener.committer.writer.gaps)
    assert not listener.queue.pending


def test_close_tries_again_for_the_last_gap(make, warnings):
    """
    When the commit of the last gap fails, `close` tries again as long as it has time: the ledger is to be complete.

    Processes that share a file wait for each other now and then, so a single attempt left drops out of the ledger.
    """
    listener = make(capacity=3)
    put(listener, 5)
    failures = [OSError("busy")]

    def busy_once(batch):
        if batch.gaps and failures:
            raise failures.pop()

    listener.committer.writer.before = busy_once
    listener.close()

    assert ([2], []) == ([gap.count for gap in listener.committer.writer.gaps], failures)


def test_flush_ends_although_there_are_always_new_gaps(make):
    """`flush` writes the gaps that it finds, and not those that come while it writes: there may be no end to them."""
    listener = make(capacity=3)
    put(listener, 5)
    listener.committer.drop_report.make(listener.committer.now())

    def overflows(_):
        put(listener, 5)
        listener.committer.drop_report.make(listener.committer.now())

    listener.committer.writer.before = overflows
    assert listener.flush()
    assert 1 == listener.committer.writer.commits
    listener.committer.writer.before = lambda _: None


def test_the_own_thread_closes_by_itself(make, clock):
    """The listener's own thread, which closes a handler that the program has dropped, waits for no other."""
    listener = make()
    put(listener, 1)
    listener._thread = threading.current_thread()
    began = clock()
    listener.close()

    assert ([0], began) == (numbers(listener), clock())


def test_close_says_what_it_gave_up(make, clock, said, warnings):
    """What cannot be written within `close_timeout` is dropped with that cause, counted, reported and said."""
    listener = make(close_timeout=3.0)
    put(listener, 5)
    listener.committer.writer.error = OSError("disk")
    began = clock()

    listener.close()

    assert pytest.approx(3.0) == clock() - began
    assert {("close_timeout", INFO, "a"): 5} == listener.queue.books()["drops"]
    assert [5] == [record.dropped for record in warnings]
    assert "5 records dropped (close_timeout)" in said[-1]


def test_close_leaves_a_stuck_commit_its_rows(make, said):
    """Rows that a commit holds which does not end are neither dropped nor forgotten: they count when it ends."""
    listener = make(batch_size=2, close_timeout=0.0)
    put(listener, 5)
    with stuck(listener):
        listener.close()
        assert (2, 3) == (listener.queue.queued, listener.queue.dropped_total)

    assert ([0, 1], 2, 3, 0) == (
        numbers(listener),
        listener.queue.written,
        listener.queue.dropped_total,
        listener.queue.queued,
    )


def test_close_gives_a_commit_under_way_a_moment(make, monkeypatch):
    """
    Without any `close_timeout`, the rows of a commit that waits for a locked file are dropped and counted.

    `close` did not wait for that tenth of a second. Then the process ended, and the rows were in no count.
    """
    listener = make(close_timeout=0, batch_size=5)
    writer = listener.committer.writer
    writer.gate, writer.error = threading.Event(), OSError("locked")
    listener.start()
    put(listener, 5)
    writer.entered.wait()
    join = threading.Thread.join

    def wait(thread, timeout):
        if timeout >= 0.1:
            writer.gate.set()
            join(thread)

    monkeypatch.setattr(threading.Thread, "join", wait)
    listener.close()
    found = listener.queue.queued, listener.queue.dropped_total
    writer.gate.set()
    monkeypatch.undo()

    assert (0, 5) == found


def test_close_in_the_middle_of_a_put(make, monkeypatch):
    """
    A signal handler that closes in the middle of a put does not wait for the thread, which waits for the put to end.

    It waited for `close_timeout`, and other threads dropped their records meanwhile. Nor does it wait for the reporter.
    """
    listener = make()
    listener.start()
    thread, waits = listener._thread, []
    monkeypatch.setattr(listener.committer.drop_report, "make", bool)
    monkeypatch.setattr(listener.committer.drop_report, "wait", waits.append)
    monkeypatch.setattr(threading.Thread, "join", lambda _, timeout=None: waits.append(timeout))

    with listener.queue.mutex:
        put(listener, 2)
        listener.close()

    assert ([0], [0, 1]) == (waits, numbers(listener))
    monkeypatch.undo()
    thread.join(60)
    assert not thread.is_alive()


def test_close_in_the_middle_of_a_put_and_of_a_commit(make, clock, said):
    """
    A signal handler that closes in the middle of a put does not wait for a commit, which waits for the put to end.

    It waited for `close_timeout`, and then dropped all rows that the commit did not hold. Now the next close has them.
    """
    listener = make(batch_size=2)
    put(listener, 5)
    with stuck(listener):
        listener.committer.lock._lock = Impatient(listener.committer.lock._lock, clock)
        began = clock()
        with listener.queue.mutex:
            assert not listener.flush()
            listener.close()

    assert (began, 0, []) == (clock(), listener.queue.dropped_total, said)
    listener.close()
    assert [0, 1, 2, 3, 4] == numbers(listener)


def test_nobody_waits_twice_for_a_stuck_commit(make, clock, said):
    """
    At exit a handler is closed, flushed and closed again: a stuck commit costs `close_timeout` once, and one line.
    """
    listener = make(close_timeout=3.0)
    put(listener, 1)
    with stuck(listener):
        listener.committer.lock._lock = Impatient(listener.committer.lock._lock, clock)
        began = clock()
        listener.close()
        waited = clock() - began

        assert not listener.flush()
        listener.close()
        assert (waited, 1) == (clock() - began, len(said))
        assert 3.0 <= waited

    assert (1, 0) == (listener.queue.written, listener.queue.queued)


def test_nobody_waits_twice_for_a_locked_database(make, clock, said, warnings):
    """
    At exit a handler is closed, flushed and closed again: a database that stays locked costs `close_timeout` once, and
    one line. What is left by then is the report of the drops, which each of them tries to write once more.

    It took three times as long: longer than the ten seconds after which a container is killed.
    """
    listener = make(close_timeout=3.0)
    put(listener, 5)
    listener.committer.writer.error = OSError("disk")
    began = clock()
    listener.close()
    waited = clock() - began

    assert not listener.flush()
    listener.close()
    assert (pytest.approx(3.0), waited) == (waited, clock() - began)
    assert ["closed with 5 records dropped"] == [line[:29] for line in said if line.startswith("closed")]

    listener.committer.writer.error = None
    assert listener.flush()
    assert [5] == [gap.count for gap in listener.committer.writer.gaps] == [record.dropped for record in warnings]


def close_in_vain(listener):
    """Close a listener with five rows that cannot be written, and put one more row."""
    put(listener, 5)
    listener.committer.writer.error = OSError("disk")
    listener.close()
    listener.queue.open()
    put(listener, 1)


def test_a_close_after_one_in_vain_waits_for_new_rows(make, clock, said):
    """What is logged after a close that gave up is waited for like anything else."""
    listener = make(close_timeout=3.0)
    close_in_vain(listener)
    began = clock()

    listener.close()

    assert pytest.approx(3.0) == clock() - began
    assert ["closed with 5", "closed with 1"] == [line[:13] for line in said if line.startswith("closed")]


def test_at_exit_one_in_vain_is_enough(make, clock, said):
    """What comes after a close that gave up at exit is tried, and not waited for, but counted and said as well."""
    listener = make(close_timeout=3.0)
    listener.committer.exits = True
    close_in_vain(listener)
    began = clock()

    assert not listener.flush()
    listener.close()

    assert began == clock()
    assert ["closed with 5", "closed with 1"] == [line[:13] for line in said if line.startswith("closed")]


@pytest.fixture
def hurried(make, clock):
    """A listener with ten rows and batches of two, in whose exit Ctrl-C was pressed; who waits moves the clock."""
    listener = make(batch_size=2, close_timeout=60)
    listener.committer.exits = listener.committer.hurried = True
    listener.committer.lock._lock = Impatient(listener.committer.lock._lock, clock)
    put(listener, 10)
    return listener


def test_after_ctrl_c_a_commit_that_does_not_end_is_not_waited_for(hurried, clock, said):
    """
    After Ctrl-C at exit, `flush` and `close` give half a second each to a commit that does not end.

    The disk did not answer, and the program ended 10 seconds after Ctrl-C, and after 5 without it.
    """
    with stuck(hurried):
        waits = []
        for wait in hurried.flush, hurried.close:
            began = clock()
            wait()
            waits.append(clock() - began)

    assert [pytest.approx(0.5)] * 2 == waits
    assert ["closed with 8 records dropped (close_timeout), 2 held by a commit that does not end; no error"] == said


def test_after_ctrl_c_commits_that_go_on_are_waited_for(hurried, monkeypatch):
    """While the listener's thread writes the rest of a full queue, Ctrl-C costs no row: `close` lets it go on."""
    commit = hurried.committer.commit
    # Another thread has the lock all the time, and commits under it.
    monkeypatch.setattr(hurried.committer, "commit", lambda _: (commit(), False)[1])

    hurried.close()

    assert (list(range(10)), 0) == (numbers(hurried), hurried.queue.books()["dropped_total"])


def test_after_ctrl_c_each_close_is_hurried(hurried):
    """A `close` with time left does not give the next one its time back."""
    hurried.close()

    assert hurried.committer.hurried


def test_after_ctrl_c_no_thread_is_waited_for(hurried, monkeypatch):
    """Nor is a thread, be it the one that commits or one that sends a drop warning to a handler that blocks."""
    waits = []
    monkeypatch.setattr(hurried, "stop", waits.append)
    monkeypatch.setattr(hurried.committer.drop_report, "make", bool)
    monkeypatch.setattr(hurried.committer.drop_report, "wait", waits.append)

    hurried.close()

    assert [0.5, 0.5] == waits


@pytest.mark.parametrize("exits", [False, True])
def test_what_close_waits_for_at_exit_is_waited_for_once(make, clock, monkeypatch, exits):
    """
    When a `close` at exit has used up its time, that of `logging.shutdown`, which comes next, has none.

    The archive was on a slow disk, and each of them waited 5 seconds for the thread that writes there. A `close` of the
    program leaves the next one its time.
    """
    listener = make(close_timeout=3.0)
    listener.committer.exits = exits
    monkeypatch.setattr(listener, "stop", clock.advance)

    listener.close()

    assert exits is listener.committer.hurried


def test_a_first_close_waits_for_drops_without_rows(make, clock, warnings):
    """A report is waited for though no row was ever queued: nothing has been given up yet."""
    listener = make(capacity=1, close_timeout=3.0)
    listener.queue.contend((INFO, 1.0, ("a",)))
    listener.committer.drop_report.make(listener.committer.now())
    listener.committer.writer.error = OSError("disk")
    began = clock()

    listener.close()

    assert pytest.approx(3.0) == clock() - began


def test_close_under_logging_lock_waits_for_no_other_handler(make, monkeypatch):
    """A handler that is given the last warning may need logging's lock, which the caller of `close` holds."""
    listener, waited = make(), []
    monkeypatch.setattr(listener.committer.drop_report, "wait", waited.append)
    with LOGGING_LOCK:
        listener.close()
    under_lock = waited.count(listener.committer.close_timeout)
    listener.close()

    assert (0, 1) == (under_lock, waited.count(listener.committer.close_timeout))


def test_a_thread_that_was_stopped_drops_nothing(make):
    """A stopped thread tries once to write the rest, and leaves it to `close`, which has the time to try again."""
    listener = make()
    put(listener, 3)
    listener.committer.writer.error = OSError("disk")
    listener.committer.finish()

    assert (3, 0) == (listener.queue.queued, listener.queue.dropped_total)


def test_at_exit_no_fork_keeps_rows(make, monkeypatch):
    """Rows that `close` cannot write wait for the end of another thread's fork, but not at exit: nobody would come."""
    monkeypatch.setattr("sqlite_log_handler._write.committer.another_forks", lambda: True)
    listener = make()
    put(listener, 3)
    listener.committer.writer.error = OSError("disk")
    queued = []
    for exits in (False, True):
        listener.committer.exits = exits
        listener.committer.finish(listener.committer.now())
        queued.append(listener.queue.queued)

    assert [3, 0] == queued


def test_a_stuck_commit_that_fails_after_close_is_counted(make):
    """When the commit fails in the end, its rows are dropped as `close_timeout`: no thread is left to try again."""
    listener = make(batch_size=2, close_timeout=0.0)
    listener.committer.writer.error = OSError("disk")
    put(listener, 5)
    with stuck(listener):
        listener.close()

    assert {("close_timeout", INFO, "a"): 5} == listener.queue.books()["drops"]
    assert 0 == listener.queue.queued
