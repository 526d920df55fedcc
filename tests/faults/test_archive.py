"""
The archive, whatever happens to the process, to its folder and to the disk: no row is missing, and none is there twice.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys

import pytest
from archives import KINDS, account, parts_in

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")

# Rows of several days; limits that archive, delete and expire all the time.
ARCHIVES = """
    import ctypes
    from sqlite_log_handler._write.retention import archive as _archive
    _archive._best_kind = lambda: os.environ.get("KIND", "jsonl.gz")
    folder = os.path.join(os.path.dirname(path), "archive")
    os.makedirs(folder, exist_ok=True)
    handler = SQLiteHandler(path, flush_interval=3600, max_rows=60, archive=folder, **eval(arguments[0]))
    logger.addHandler(handler)
    print("begun", flush=True)
    if "NTH" in os.environ:
        shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        shim.fault_arm(os.path.dirname(path).encode(), int(os.environ["NTH"]), -signal.SIGKILL, 0)
    for number in range(int(arguments[1])):
        for n in range(10):
            record = logger.makeRecord("program", 20, "", 0, "n %d", (number * 10 + n,), None)
            record.created = 1_700_000_000 + number * 20_000 + n
            handler.handle(record)
        handler.flush(60)
        handler.listener.committer.prune()
        run = handler.listener.committer.writer.archiver._run
        if run is not None and not run.ended and run.part is None:
            run.changed.acquire(timeout=60)
    handler.close()
    if "NTH" in os.environ:
        print(int(os.environ["NTH"]) - ctypes.c_long(shim.fault_left()).value)
"""


@pytest.fixture
def folder(path):
    """The folder of the archive."""
    return path.parent / "archive"


def check(path, folder, options=()):
    """
    Check that each row that was ever written is in the archive or in the file, once, or counted; return how many.

    Without options none is gone. Unless rows may be given up between two parts, only the oldest are.
    """
    ids, gone = account(path, folder)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((last_id,),) = connection.execute("SELECT ifnull(max(id), 0) FROM records")
        ((counted,),) = connection.execute(
            "SELECT (SELECT ifnull(sum(records), 0) FROM volume) + (SELECT ifnull(sum(records), 0) FROM record_totals)"
        )
    assert options or not gone
    assert ids == (sorted({*ids}) if "unarchived" in options else [*range(last_id - len(ids) + 1, last_id + 1)])
    assert last_id == len(ids) + gone == counted
    return last_id


def finish(start, options, rounds, **env):
    """Run a program that archives to its end; return the last word that it prints."""
    process = start(ARCHIVES, options, rounds, env=env)
    printed, said = process.communicate()
    assert (0, "") == (process.returncode, said)
    return printed.split()[-1]


def kill_at_nth(start, path, folder, nth, options, **env):
    """Kill a program at its n-th step on its files, in any thread; tell whether it came so far. Another goes on."""
    process = start(ARCHIVES, options, 12, env={**env, "NTH": str(nth)})
    _, said = process.communicate()
    assert process.returncode in {0, -signal.SIGKILL}, (nth, said)
    check(path, folder, options)
    finish(start, options, 6, **env)
    check(path, folder, options)
    assert not [name for name in parts_in(folder) if name.endswith(".partial")], nth
    return process.returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"unarchived": "delete"}, {"archive_max_age": "1d"}], ids=str)
def test_killed_at_the_nth_step_of_the_archive(start, path, folder, shim, long, options, kind, tmp_path_factory):
    """
    Killed whenever it opens, writes, syncs, renames or deletes a file, a program leaves each row in the file or in a
    part that is noted, and the next program goes on from there.

    strace counts the calls of each thread by itself. So the thread that commits, which makes most of them, was always
    killed before the archive's thread, and the steps of the archive were never cut. And each program began where the
    one before had stopped, with more and more steps to make, so the test had no end that could be told.
    """
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    env = {"KIND": kind, "LD_PRELOAD": shim}
    finish(start, options, 12, **env)
    kept = shutil.copytree(path.parent, tmp_path_factory.mktemp("kept") / "log")
    steps = range(1, int(finish(start, options, 12, **env, NTH="1000000000")) + 1, 1 if long else 29)
    killed = 0
    for nth in steps:
        shutil.rmtree(path.parent)
        shutil.copytree(kept, path.parent)
        killed += kill_at_nth(start, path, folder, nth, options, **env)

    # How far the archive's thread is when the program ends depends on the machine, and with it the last steps.
    assert len(steps) * 0.8 < killed


FILLED = """
    handler = SQLiteHandler(path)
    for number in range(120):
        record = logger.makeRecord("program", 20, "", 0, "n %d", (number,), None)
        record.created = 1_700_000_000 + number * 2_000
        handler.handle(record)
    handler.close()
"""
PRUNE = """
    import ctypes
    from sqlite_log_handler.__main__ import main
    from sqlite_log_handler._write.retention import archive as _archive
    _archive._best_kind = lambda: "jsonl.gz"
    if "NTH" in os.environ:
        shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        shim.fault_arm(os.path.dirname(path).encode(), int(os.environ["NTH"]), -signal.SIGKILL, 0)
    sys.exit(main(["prune", path, "--max-rows", "20", "--archive", os.path.join(os.path.dirname(path), "archive")]))
"""


@pytest.mark.slow
def test_prune_is_killed_at_its_nth_step(start, path, folder, shim, long, tmp_path):
    """`sqlite-log prune --archive` that is killed at any of its steps leaves each row; run again, it does the rest."""
    assert 0 == start(FILLED).wait()
    kept = tmp_path / "kept.db"
    shutil.copy(path, kept)
    nth, killed = 0, True
    while killed:
        nth += 1 if long else 17
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in path.parent.glob("app-log.db*"):
            file.unlink()
        shutil.copy(kept, path)
        process = start(PRUNE, env={"LD_PRELOAD": shim, "NTH": str(nth)})
        process.communicate()
        killed = process.returncode != 0
        assert 120 == check(path, folder), nth
        assert 0 == start(PRUNE).wait(), nth
        assert 120 == check(path, folder), nth
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert [(20,)] == connection.execute("SELECT count(*) FROM records").fetchall()

    assert nth > 50


def test_killed_at_random_while_it_archives(start, path, folder, long):
    """After a kill -9 at any moment each row is there once; the next program archives the rest."""
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    options = {"flush_interval": 0.001}
    for _ in range(200 if long else 4):
        process = start(ARCHIVES.replace("flush_interval=3600, ", ""), options, 1_000_000)
        assert "begun\n" == process.stdout.readline()
        for _ in range(chance.randrange(3_000_000)):
            pass
        process.send_signal(signal.SIGKILL)
        process.communicate()
        check(path, folder)

    follow_up = start(ARCHIVES, {}, 10)
    assert 0 == follow_up.wait(), follow_up.stderr.read()
    assert 0 < check(path, folder), seed
    assert parts_in(folder)


def test_processes_share_an_archive(start, path, folder):
    """Processes that log into one file and archive it into one folder leave each row once."""
    processes = [start(ARCHIVES, {}, 60) for _ in range(4)]
    for process in processes:
        _, said = process.communicate()
        assert (0, "") == (process.returncode, said)

    assert 4 * 600 == check(path, folder)
    assert 2 <= len(parts_in(folder))


FORKS = """
    sys.modules["pyarrow"] = None
    folder = os.path.join(os.path.dirname(path), "archive")
    os.makedirs(folder)
    handler = SQLiteHandler(path, flush_interval=0.001, max_rows=60, archive=folder)
    logger.addHandler(handler)
    children = []
    for number in range(100):
        for n in range(20): logger.info("parent %d", number * 20 + n)
        if number % 10 == 5:
            child = os.fork()
            if not child:
                for n in range(50): logger.info("child-%d %d", number, n)
                logging.shutdown()
                os._exit(0)
            children.append(child)
    for child in children:
        assert 0 == os.waitpid(child, 0)[1]
    handler.close()
"""


@pytest.mark.skipif(
    not hasattr(os, "fork") or "free-threading" in sys.version,
    reason="no fork; or no GIL: it has failed there once, and the cause is not known",
)
def test_forks_beside_the_archive(start, path, folder):
    """A child that is forked while rows are archived logs and archives itself, and nothing is there twice."""
    process = start(
        FORKS, options=("-W", "ignore::DeprecationWarning")
    )  # of a fork beside threads, from Python 3.12 on
    _, said = process.communicate()
    assert (0, "") == (process.returncode, said)

    assert 2_000 + 10 * 50 == check(path, folder)


def test_a_folder_that_fails(start, path, folder):
    """A folder that is removed while the program runs costs a line; when it is back, the rows are archived."""
    program = ARCHIVES.replace(
        "    for number in range(int(arguments[1])):\n",
        "    import shutil\n"
        "    for number in range(int(arguments[1])):\n"
        "        if number == 10: shutil.rmtree(folder)\n"
        "        if number == 20: os.makedirs(folder); handler.listener.committer.writer.archiver._next_run = 0\n",
    )
    process = start(program, {}, 40)
    _, said = process.communicate()

    assert 0 == process.returncode
    lines = said.splitlines()
    assert 2 == len(lines), said
    assert "cannot archive in" in lines[0]
    assert "No such file or directory" in lines[0]
    assert lines[1].endswith("archiving again")


@pytest.mark.privileged
def test_a_folder_that_is_read_only(start, path, mounted):
    """A folder to which nobody can write costs one line, and no row leaves the file."""
    folder = mounted("-t", "tmpfs", "-o", "ro", "none")
    process = start(ARCHIVES.replace('os.path.join(os.path.dirname(path), "archive")', repr(str(folder))), {}, 12)
    _, said = process.communicate()

    assert 0 == process.returncode
    assert 1 == said.count("\n")
    assert "Read-only file system" in said
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [(120, 0)] == connection.execute(
            "SELECT count(*), (SELECT unarchived FROM marks) FROM records"
        ).fetchall()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has /proc")
def test_a_folder_without_locks(start, path, folder):
    """On a file system without locks the archive is made all the same, and that is said once, with the folder."""
    program = ARCHIVES.replace(
        "    import ctypes\n",
        "    import ctypes, errno, fcntl\n"
        "    flock = fcntl.flock\n"
        "    def refuse(descriptor, operation):\n"
        "        if 'archive-lock' in os.readlink(f'/proc/self/fd/{descriptor}'): raise OSError(errno.ENOSYS, 'no')\n"
        "        flock(descriptor, operation)\n"
        "    fcntl.flock = refuse\n",
    )
    process = start(program, {}, 12)
    _, said = process.communicate()

    assert 0 == process.returncode
    assert 1 == said.count("\n"), said
    assert f"{str(folder)!r}: no locks on this file system" in said
    assert 120 == check(path, folder)
    assert 2 <= len(parts_in(folder))


def test_a_short_program(start, path, folder):
    """A program that runs for a moment archives at its end what is due."""
    program = ARCHIVES.replace("            run.changed", "            pass; 0 and run.changed")
    for _ in range(3):
        process = start(program, {}, 4)
        _, said = process.communicate()
        assert (0, "") == (process.returncode, said)

    assert 120 == check(path, folder)
    assert parts_in(folder)
