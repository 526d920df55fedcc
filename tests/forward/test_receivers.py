"""
The command `forward` against receivers that others use: Rotel, the collector in Rust, and OtelTap.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3

import pytest

pytest.importorskip("opentelemetry.proto", reason="needs the extra: pip install 'sqlite-log-handler[test-forward]'")

from receivers import WATCHDOG, errors_of, eventually, rows_in


def test_rotel_takes_what_is_forwarded(rotel, server, filled, run_forward):
    """Rotel, which passes on what it gets, passes on each row of the log once."""
    collector = rotel("--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", server.url)
    path = filled(5_000)

    run_forward(path, "--otlp", collector.url)

    eventually(lambda: len(server.uids) == 5_000, "Rotel passes on all rows")
    assert {1} == set(server.uids.values())


def test_oteltap_shows_what_was_logged(oteltap, make_handler, logger, path, run_forward):
    """What OtelTap prints is what was logged, told by a program that knows nothing of ours."""
    logger.addHandler(make_handler())
    try:
        raise ValueError("no tea")
    except ValueError:
        logger.exception("order %d failed", 42, extra={"customer": "c-17", "tags": ["a", 1]})
    logger.handlers[0].flush()

    run_forward(path, "--otlp", oteltap.url, "--compression", "none", "--service", "shop")

    eventually(oteltap.records, "OtelTap prints")
    (record,) = oteltap.records()
    attributes = {attribute["key"]: attribute["value"] for attribute in record["attributes"]}
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((created_us,),) = connection.execute("SELECT created_us FROM records").fetchall()
    assert {"stringValue": "order 42 failed"} == record["body"]
    assert (str(created_us * 1000), 17, "ERROR") == tuple(
        record[name] for name in ("timeUnixNano", "severityNumber", "severityText")
    )
    assert {"stringValue": "c-17"} == attributes["customer"]
    assert {"arrayValue": {"values": [{"stringValue": "a"}, {"intValue": "1"}]}} == attributes["tags"]
    assert {"stringValue": "ValueError"} == attributes["exception.type"]
    assert {"stringValue": "no tea"} == attributes["exception.message"]


def test_a_receiver_that_knows_no_gzip_says_so(oteltap, filled, run_forward, query):
    """OtelTap refuses compressed requests; the command says what it said, ends, and has passed over no row."""
    said = run_forward(filled(2_000), "--otlp", oteltap.url, code=1)

    assert "refuses every row" in said
    assert "--compression none" in said
    assert [(0,)] == query("SELECT after_id FROM cursors")


def test_three_writers_two_receivers_restarts_and_kills(rotel, oteltap, server, forward, write, path, long):
    """
    A log that three processes write is forwarded to Rotel and OtelTap, while both are restarted and both forwarders
    killed; the rows at the far ends are those of the file.
    """
    collector = rotel(
        *("--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", server.url),
        # So that it has nothing of ours when it ends.
        "--disable-batching",
    )
    rounds = 10 if long else 3
    writers = [write(path, f"writer-{number}", 60 * rounds, 50, 0.02) for number in range(3)]
    eventually(path.exists, "the log is there")
    commands = {
        "rotel": (path, "-f", "--otlp", collector.url, "--batch-rows", 200),
        "oteltap": (path, "-f", "--otlp", oteltap.url, "--batch-rows", 200, "--compression", "none"),
    }
    forwarders = {name: forward(*command) for name, command in commands.items()}
    eventually(lambda: server.uids and oteltap.uids(), "both get rows")

    for receiver, name in itertools.islice(itertools.cycle([(collector, "rotel"), (oteltap, "oteltap")]), 2 * rounds):
        receiver.stop()
        receiver.start()
        forwarders[name].kill()
        forwarders[name].wait()
        forwarders[name] = forward(*commands[name])

    assert [0, 0, 0] == [writer.wait(120) for writer in writers]
    rows = rows_in(path)
    assert 3 * 60 * rounds * 50 == rows
    eventually(lambda: len(server.uids) >= rows, "all rows arrive behind Rotel")
    eventually(lambda: len(oteltap.uids()) >= rows, "all rows arrive at OtelTap")
    assert (rows, rows) == (len(server.uids), len(oteltap.uids()))
    for forwarder in forwarders.values():
        forwarder.terminate()
        assert 0 == forwarder.wait(WATCHDOG), errors_of(forwarder)
