"""
Disks that do not answer, and programs that do not wait for them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

# With these `options`, a commit of "n 1" is stuck on a disk that does not answer.
FROZEN = """
    import ctypes
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    handler = SQLiteHandler(path, flush_interval=0.001, **options)
    logger.addHandler(handler)
    logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
    logger.info("n 0")
    assert handler.flush()
    shim.fault_freeze(path.encode())
    logger.info("n 1")
    while not shim.fault_held(): pass
"""

# And "n 2" waits behind it.
STUCK = f"""
    options = {{"close_timeout": float(arguments[0])}}
    {FROZEN}
    logger.info("n 2")
"""


def test_the_disk_is_frozen(run, contents, shim):
    """
    While the disk does not answer, callers go on, `close` gives up in time and says so, and the books balance.

    The rows that the stuck commit holds are neither dropped nor forgotten: when the disk answers, they are written.
    Nothing thaws it before `close` has returned, so a `close` that waits for it hangs.
    """
    run(
        f"""
    options = {{"batch_size": 10, "capacity": 50, "reserve": 0, "fair_share": 1, "close_timeout": 0.2}}
    {FROZEN}
    for number in range(2, 102): logger.info("n %d", number)
    assert not handler.flush(0.01)
    stats = handler.stats()
    assert (102, 1, 50, 51) == (stats.seen, stats.written, stats.queued, stats.dropped_total), stats
    handler.close()
    stats = handler.stats()
    assert (1, 1, 49) == (stats.written, stats.queued, stats.dropped_by_cause["close_timeout"]), stats
    logger.info("n 102")
    shim.fault_thaw()
    handler.listener.committer.close_timeout = 60
    handler.close()
    stats = handler.stats()
    assert (103, 3, 0, 100) == (stats.seen, stats.written, stats.queued, stats.dropped_total), stats
        """,
        env={"LD_PRELOAD": shim}.items(),
        stderr="[^\n]*closed with 49 records dropped [(]close_timeout[)], 1 held by a commit that does not end[^\n]*\n",
    )
    found = contents()

    assert ([0, 1, 102], 100) == (found.numbers["n"], found.dropped)


@pytest.mark.skipif(
    "free-threading" in sys.version,
    reason="without a GIL, a thread that has flushed finalizes its statements itself, and waits for the disk",
)
@pytest.mark.parametrize("queued", [0, 5])
def test_the_disk_is_frozen_when_nobody_looks(run, contents, shim, queued):
    """
    Also when the disk stopped to answer since the last commit, `close` ends in time: it is not its thread that waits.

    To close the file writes the WAL back, so a program that had nothing left to write could hang at its exit.
    """
    run(
        """
        import ctypes
        shim, queued = ctypes.CDLL(os.environ["LD_PRELOAD"]), int(arguments[0])
        handler = SQLiteHandler(path, flush_interval=3600, close_timeout=0.2)
        logger.addHandler(handler)
        logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
        logger.info("n 0")
        assert handler.flush()
        shim.fault_freeze(path.encode())
        # The listener's thread gets the time to come to the disk.
        handler.listener.committer.now = lambda: 3600.0 * shim.fault_held()
        for number in range(1, 1 + queued): logger.info("n %d", number)
        handler.close()
        stats = handler.stats()
        assert (1, queued, 0) == (stats.written, stats.queued, stats.dropped_total), stats
        shim.fault_thaw()
        while handler.listener.committer.writer.file.connection or handler.stats().queued: pass
        """,
        queued,
        env={"LD_PRELOAD": shim}.items(),
        stderr="" if not queued else "[^\n]*closed with 0 records dropped [^\n]* 5 held by a commit[^\n]*\n",
    )

    assert list(range(1 + queued)) == contents().numbers["n"]


def test_a_process_ends_beside_a_frozen_disk(run, contents, shim):
    """A process whose disk does not answer comes to its end, after `close_timeout`, and says what it gave up."""
    run(
        STUCK,
        0.2,
        env={"LD_PRELOAD": shim}.items(),
        stderr="[^\n]*closed with 1 records dropped [^\n]* 1 held by a commit that does not end[^\n]*\n",
    )

    assert {"n": [0]} == contents().numbers


def test_ctrl_c_beside_a_frozen_disk(run, contents, shim):
    """Ctrl-C ends a process that waits an hour, as its `close_timeout` says, for a disk that does not answer."""
    run(
        STUCK
        + """
    thread = handler.listener._thread
    def join(timeout):
        del thread.join
        raise KeyboardInterrupt
    thread.join = join
        """,
        3600,
        env={"LD_PRELOAD": shim}.items(),
        stderr="(?s).*KeyboardInterrupt.*closed with 1 records dropped [^\n]* 1 held by a commit that does not end.*",
    )

    assert {"n": [0]} == contents().numbers


@pytest.mark.privileged
def test_a_file_system_that_is_frozen(run, contents, mounted, tmp_path):
    """On an ext4 that was frozen (as a snapshot does it) the same holds as on a disk that does not answer."""
    if shutil.which("mkfs.ext4") is None or shutil.which("fsfreeze") is None:
        pytest.skip("no mkfs.ext4 or no fsfreeze here")
    image = tmp_path / "image"
    image.write_bytes(bytes(16 << 20))
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    folder = mounted("-o", "loop", image)
    file = folder / "app-log.db"
    run(
        """
        import subprocess
        path = arguments[0]
        handler = SQLiteHandler(path, flush_interval=0.001, close_timeout=0.2)
        logger.addHandler(handler)
        logging.getLogger("sqlite_log_handler").addHandler(logging.NullHandler())
        logger.info("n 0")
        assert handler.flush()
        def stuck():
            with open(f"/proc/self/task/{handler.listener._thread.native_id}/stat") as file:
                return file.read().rpartition(")")[2].split()[0] == "D"
        subprocess.run(["fsfreeze", "-f", os.path.dirname(path)], check=True)
        try:
            logger.info("n 1")
            while not stuck(): pass
            for number in range(2, 10): logger.info("n %d", number)
            handler.close()
            stats = handler.stats()
            assert (10, 1, 1, 8) == (stats.seen, stats.written, stats.queued, stats.dropped_total), stats
        finally:
            subprocess.run(["fsfreeze", "-u", os.path.dirname(path)], check=True)
        logger.info("n 10")
        handler.listener.committer.close_timeout = 60
        handler.close()
        stats = handler.stats()
        assert (11, 3, 0, 8) == (stats.seen, stats.written, stats.queued, stats.dropped_total), stats
        """,
        file,
        stderr="[^\n]*closed with 8 records dropped [(]close_timeout[)], 1 held by a commit that does not end[^\n]*\n",
    )
    found = contents(file)

    assert ([0, 1, 10], 8) == (found.numbers["n"], found.dropped)
