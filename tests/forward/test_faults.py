"""
The command `forward` against a receiver that fails in every way a receiver can.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import threading
import time
from collections import Counter

import pytest

pytest.importorskip("opentelemetry.proto", reason="needs the extra: pip install 'sqlite-log-handler[test-forward]'")

from answering import certificate
from receivers import WATCHDOG, errors_of, eventually, free_port, partial, rows_in, serving


def is_whole(server, path):
    """Tell whether every row of the log has arrived."""
    return len(server.uids) == rows_in(path)


def test_everything_arrives_once(server, filled, run_forward):
    """A receiver without faults gets each row once, compressed, in requests of 8,000 rows at most."""
    path = filled(20_000)

    said = run_forward(path, "--otlp", server.url)

    assert is_whole(server, path)
    assert {1} == set(server.uids.values())
    assert 3 == len(server.sizes)
    assert {"gzip"} == {headers["Content-Encoding"] for headers in server.headers}
    assert f"sqlite-log: 20,000 rows sent to {server.url}/v1/logs in 3 requests\n" == said


def test_the_next_run_goes_on_where_the_last_one_ended(server, filled, run_forward, path):
    """A second run sends what came since, and nothing twice."""
    for count in (10, 20):
        filled(count)
        run_forward(path, "--otlp", server.url)

    assert 30 == len(server.uids) == sum(server.uids.values())


def test_a_receiver_that_fails_in_every_way_gets_every_row(server, filled, run_forward):
    """
    After 429, 503, a cut connection, garbage, and an answer that no receiver gives, every row has arrived.

    Twice comes only what was taken without an answer.
    """
    path = filled(600)
    now = {"Retry-After": "0"}
    server.plan = [(429, now), "take", (503, now), 503, "take", "cut", "take", b"garbage", "take", (500, now), "take"]

    said = run_forward(path, "--otlp", server.url, "--batch-rows", 100)

    assert is_whole(server, path)
    assert {1: 400, 2: 200} == Counter(server.uids.values())
    assert f"the receiver {server.url}/v1/logs: HTTP status 429; trying again" in said
    assert 5 == said.count("trying again") == said.count("back after")


def test_retry_after_is_honoured(server, filled, run_forward):
    """A receiver that says 429 and names a time is not asked again before it."""
    path = filled(10)
    server.plan = [(429, {"Retry-After": "3"})]

    run_forward(path, "--otlp", server.url)

    first, second = server.times
    assert second - first >= 3


def test_partial_success_is_reported(server, filled, run_forward):
    """Rows that the receiver rejects are counted, told, not sent again, and make the exit status 1."""
    path = filled(100)
    server.plan = [partial(7, "too old")]

    said = run_forward(path, "--otlp", server.url, code=1)

    assert "rejected by the receiver: 7 of 100 rows: too old" in said
    assert "; 7 of them rejected by the receiver" in said
    assert {1} == set(server.uids.values())


def test_a_receiver_that_is_not_there(filled, run_forward, query):
    """When nobody answers for --retry-seconds the exit status is 1, and the cursor is where it was."""
    path = filled(10)
    port = free_port()

    said = run_forward(path, "--otlp", f"http://127.0.0.1:{port}", "--retry-seconds", 1, code=1)

    assert "Connection refused" in said
    assert "gave up after" in said
    assert [(0,)] == query("SELECT after_id FROM cursors")


def test_a_receiver_that_does_not_want_us(server, filled, run_forward, query):
    """A wrong key ends the run at once with what the receiver says; the cursor is where it was."""
    server.plan = [401]

    said = run_forward(filled(10), "--otlp", server.url, code=1)

    assert "HTTP status 401" in said
    assert [(0,)] == query("SELECT after_id FROM cursors")


def test_the_environment_is_used(server, filled, run_forward):
    """Endpoint, headers, compression and names come from the standard variables."""
    path = filled(10)

    run_forward(
        path,
        env={
            "OTEL_EXPORTER_OTLP_ENDPOINT": server.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-scope-orgid=tenant%201",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        },
    )

    assert is_whole(server, path)
    assert "tenant 1" == server.headers[0]["x-scope-orgid"]
    assert "Content-Encoding" not in server.headers[0]
    assert server.headers[0]["User-Agent"].startswith("sqlite-log-handler/")


def test_a_certificate_of_our_own(filled, run_forward, tmp_path):
    """A receiver whose certificate is not known is sent nothing; with OTEL_EXPORTER_OTLP_CERTIFICATE it is known."""
    file, context = certificate(tmp_path, "IP:127.0.0.1")
    path = filled(10)

    with serving(context) as server:
        url = server.url.replace("http:", "https:")
        said = run_forward(path, "--otlp", url, code=1)
        assert "certificate verify failed" in said
        assert not server.uids

        run_forward(path, "--otlp", url, env={"OTEL_EXPORTER_OTLP_CERTIFICATE": file})
        assert is_whole(server, path)


def test_several_files(server, filled, run_forward, tmp_path):
    """One call forwards several logs, each with a cursor of its own."""
    paths = [filled(count, tmp_path / f"{count}.db") for count in (100, 3_000)]

    run_forward(*paths, "--otlp", server.url)

    assert 3_100 == len(server.uids)


@pytest.mark.parametrize("names", [("app-log.db", "link.db"), ("link.db", "app-log.db")], ids=" ".join)
def test_a_log_under_two_names(server, filled, run_forward, path, names):
    """
    A log that is named twice, by a link too, as `*.db` may name it, is sent once.

    The command took itself for another forwarder, and ended before all rows were sent.
    """
    filled(300)
    path.with_name("link.db").symlink_to(path.name)

    assert "300 rows sent" in run_forward(*names, "--otlp", server.url, "--batch-rows", "100")
    assert {1} == set(server.uids.values())


def test_two_receivers(server, filled, run_forward):
    """A log that is forwarded to two receivers has a cursor for each."""
    path = filled(10)

    with serving() as other:
        run_forward(path, "--otlp", server.url)
        run_forward(path, "--otlp", other.url)
        assert is_whole(server, path)
        assert is_whole(other, path)


def test_following(server, forward, write, path, query):
    """With -f, rows arrive while the program writes, and SIGTERM ends it with status 0 and nothing unsaved."""
    writer = write(path, "shop", 20, 100, 0.02)
    eventually(path.exists, "the log is there")
    process = forward(path, "-f", "--otlp", server.url)
    assert 0 == writer.wait(WATCHDOG)
    eventually(lambda: is_whole(server, path), "all rows arrive")
    eventually(lambda: [(2_000,)] == query("SELECT after_id FROM cursors"), "the cursor has moved")

    process.terminate()

    assert 0 == process.wait(WATCHDOG)
    assert {1} == set(server.uids.values())
    assert "2,000 rows sent" in errors_of(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("plan", ["hang", (503, {"Retry-After": "600"})])
def test_a_signal_ends_it_at_once(server, filled, forward, number, plan):
    """A signal ends it while the receiver does not answer, or asks for ten minutes, and not at the end of those."""
    server.plan = [plan]
    process = forward(filled(10), "-f", "--otlp", server.url)
    eventually(lambda: server.times, "a request comes")

    process.send_signal(number)

    assert 0 == process.wait(60)  # the server hangs twice as long


@pytest.mark.parametrize("follow", [[], ["-f"]])
def test_killed_at_random(server, forward, run_forward, make_handler, logger, write, path, long, follow):
    """Whatever moment a kill -9 comes at, every row arrives, and each kill costs one batch of duplicates at most."""
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    kills, batch = 50 if long else 5, 50
    logger.addHandler(make_handler())
    writer = write(path, "shop", 10 * kills, 5, 0.02)
    arguments = (path, *follow, "--otlp", server.url, "--batch-rows", batch)

    for _ in range(kills):
        for number in range(10 * batch):
            logger.info("%d", number)
        assert logger.handlers[0].flush(60)
        before = len(server.times)
        process = forward(*arguments)
        eventually(lambda before=before: len(server.times) > before, f"a request comes (seed {seed})")
        threading.Event().wait(chance.random() * 0.05)
        process.kill()
        process.wait()
    assert 0 == writer.wait(WATCHDOG)
    run_forward(path, "--otlp", server.url)

    assert is_whole(server, path), f"seed {seed}"
    duplicates = sum(server.uids.values()) - len(server.uids)
    assert duplicates <= kills * batch, f"seed {seed}"
    print(f"{kills} kills, {len(server.uids)} rows, {duplicates} duplicates")


def test_killed_while_the_receiver_has_taken_but_not_answered(server, filled, forward, run_forward):
    """Rows whose answer never came are sent again after a kill -9, and the uids tell that they are the same."""
    path = filled(100)
    server.plan = ["cut", "hang"]
    process = forward(path, "-f", "--otlp", server.url)
    eventually(lambda: len(server.times) == 2, "the second request comes")
    process.kill()
    process.wait()

    run_forward(path, "--otlp", server.url)

    assert {2} == set(server.uids.values())
    assert is_whole(server, path)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="asks Linux how much memory it took at most")
def test_memory_has_a_bound(server, filled, path, start, make_handler, logger):
    """However long the backlog and its rows are, the process stays below 80 MB."""
    logger.addHandler(make_handler(capacity_bytes=1 << 28))
    for number in range(2_000):
        logger.info("%d %s", number, "x" * 60_000)
        if number % 500 == 0:
            assert logger.handlers[0].flush(60)
    assert logger.handlers[0].flush(60)
    program = (
        "import sys; from sqlite_log_handler.__main__ import main; status = main(sys.argv[1:]); "
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]); sys.exit(status)"
    )

    process = start(sys.executable, "-c", program, "forward", path, "--otlp", server.url)

    assert 0 == process.wait(WATCHDOG), errors_of(process)
    assert is_whole(server, path)
    with open(f"{process.base}.out") as out:
        assert int(out.read()) * 1024 <= 80_000_000


def test_no_request_is_longer_than_asked_for(server, filled, run_forward):
    """--batch-bytes is a bound on the body of a request."""
    path = filled(2_000)

    run_forward(path, "--otlp", server.url, "--compression", "none", "--batch-bytes", 50_000)

    assert is_whole(server, path)
    assert max(server.sizes) <= 50_000


def test_rows_that_were_pruned_are_reported(server, filled, run_forward, path, query):
    """Rows that went before they were sent are counted in what the command says, with the cause that the file knows."""
    filled(10)
    run_forward(path, "--otlp", server.url)
    filled(10)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM records WHERE id <= 14")
        connection.execute("INSERT INTO prunes VALUES (1, 1, 14, 0, 0, 'max_age', 14, 4, 0)")
    connection.close()

    said = run_forward(path, "--otlp", server.url)

    assert f"pruned before they were sent: 4 rows of {path} (max_age)" in said
    assert "; 4 pruned before they were sent" in said
    assert 16 == len(server.uids)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-such.db"], "'no-such.db' is not a file: name the file of a SQLiteHandler, or wait for it with -f"),
        (["app-log.db", "--otlp", "collector:4318"], "is wrong: write http:// or https://"),
        (["app-log.db", "--batch-rows", "0"], "'0' is below 1"),
        (["app-log.db", "--batch-bytes", "many"], "'many' is not a whole number"),
        (["other.db"], "another program"),
    ],
)
def test_wrong_arguments(filled, run_forward, tmp_path, arguments, words):
    """A wrong argument is an error with what to do, and the exit status 2."""
    filled(1)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()

    assert words in run_forward(*arguments, code=2)


def test_the_extra_is_missing(filled, start):
    """Without the packages of the extra the error names the line that installs them, and the exit status is 2."""
    program = (
        "import sys; sys.modules['google.protobuf'] = None; from sqlite_log_handler.__main__ import main; "
        "sys.exit(main(['forward', 'app-log.db']))"
    )

    process = start(sys.executable, "-c", program)

    assert 2 == process.wait(60)
    assert "pip install 'sqlite-log-handler[otlp]'" in errors_of(process)


def test_a_receiver_that_is_away(forward, filled, write, path, long):
    """
    While nobody listens at the receiver's address the program goes on writing; when somebody does, everything arrives.

    The operator is told when it begins and when it is over.
    """
    away = 60.0 if long else 1.0
    filled(1)
    with serving() as server:
        process = forward(path, "-f", "--otlp", server.url)
        eventually(lambda: server.uids, "it works")
        before = server.uids
    writer = write(path, "shop", 1_000 if long else 40, 200, 0.1 if long else 0.05)
    threading.Event().wait(away)
    eventually(lambda: "trying again" in errors_of(process), "it notices")

    with serving(port=server.server_address[1]) as server:
        server.uids.update(before)
        began = time.monotonic()
        eventually(lambda: rows_in(path) - len(server.uids) < 500, "the lag is gone")
        print(f"away for {away} s, no lag after {time.monotonic() - began:.1f} s")
        assert 0 == writer.wait(180)
        eventually(lambda: is_whole(server, path), "all arrives")

        process.terminate()
        assert 0 == process.wait(WATCHDOG)
    assert 1 == errors_of(process).count("trying again")
    assert 1 == errors_of(process).count("back after")
