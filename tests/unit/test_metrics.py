"""
The books of a handler as metrics, read by the real clients.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from sqlite_log_handler._logfile.schema import CAUSES
from sqlite_log_handler._write import handler as handler_module
from sqlite_log_handler.metrics import instrument, prometheus_collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def handler(make_handler: Callable[..., Any], logger: Any) -> Iterator[Any]:
    """A handler that has written two records; three wait for a locked file, and five found no room."""
    handler = make_handler(capacity=3, reserve=0, fair_share=1, batch_size=100, flush_interval=3600)
    logger.addHandler(handler)
    logger.info("one")
    logger.info("two")
    assert handler.flush()
    with contextlib.closing(sqlite3.connect(handler.filename, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(8):
            logger.info("%d", number)
        yield handler
        other.execute("ROLLBACK")


def test_prometheus(handler):
    """
    A scrape has the books, as Prometheus reads them, and a 0 of each cause that has dropped nothing.

    A series that begins with the first burst has not risen, so the alert for drops did not fire.
    """
    prometheus = pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - may be missing

    registry = prometheus.CollectorRegistry()
    registry.register(prometheus_collector(handler))

    text = prometheus.generate_latest(registry).decode()
    found = {
        (sample.name.removeprefix("sqlite_log_handler_"), *[v for k, v in sample.labels.items() if k != "log"]): sample
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    assert {"app-log.db"} == {sample.labels["log"] for sample in found.values()}
    values = {key: sample.value for key, sample in found.items()}
    assert 0 <= values.pop(("last_commit_age_seconds",))
    assert 0 <= values.pop(("oldest_queued_age_seconds",))
    assert 0 < values.pop(("queue_bytes",))
    assert {
        ("records_seen_total",): 10,
        ("records_written_total",): 2,
        **{("records_dropped_total", cause): 5 if cause == "queue_full" else 0 for cause in CAUSES},
        ("records_truncated_total",): 0,
        ("records_malformed_total",): 0,
        ("queue_records",): 3,
        ("queue_capacity_records",): 3,
    } == values


def test_prometheus_of_several_handlers(make_handler, tmp_path):
    """
    One collector has the books of all handlers; logs with one name have their paths.

    A registry refuses a second collector of the same metrics, so only one log of a program could be watched.
    """
    prometheus = pytest.importorskip("prometheus_client")
    (tmp_path / "other").mkdir()
    paths = [str(tmp_path / name) for name in ("a.db", "b.db", "other/b.db")]
    registry = prometheus.CollectorRegistry(auto_describe=True)
    registry.register(prometheus_collector([make_handler(path, capacity=3) for path in paths]))

    (family,) = (each for each in registry.collect() if each.name == "sqlite_log_handler_queue_capacity_records")
    (seen,) = (each for each in registry.collect() if each.name == "sqlite_log_handler_records_seen")
    labels = [{"log": "a.db"}, {"log": paths[1]}, {"log": paths[2]}]
    assert [(label, 3) for label in labels] == [(sample.labels, sample.value) for sample in family.samples]
    assert labels == [sample.labels for sample in seen.samples]


@pytest.mark.skipif(sys.platform in {"darwin", "win32"}, reason="its file systems take no such name")
def test_a_file_whose_name_is_not_utf8(make_handler, tmp_path):
    """The name of a log is text that can be sent, whatever its bytes are: one that was not failed the whole scrape."""
    prometheus = pytest.importorskip("prometheus_client")
    registry = prometheus.CollectorRegistry()
    registry.register(prometheus_collector(make_handler(tmp_path / os.fsdecode(b"\xff.db"))))

    assert rb'records_seen_total{log="\\udcff.db"} 0.0' in prometheus.generate_latest(registry)


def test_prometheus_of_two_handlers_on_one_file(handler, make_handler, logger, monkeypatch):
    """
    Handlers on one file are one log: counts add up, the oldest record is that of either, and so is the last commit.

    Prometheus keeps one of two samples with the same labels, so drops of the other handler were never seen.
    """
    prometheus = pytest.importorskip("prometheus_client")
    other = make_handler(capacity=4, flush_interval=3600)
    registry = prometheus.CollectorRegistry()
    registry.register(prometheus_collector([handler, other]))
    logger.addHandler(other)
    logger.info("and one more, for which the first handler has no room")
    now = time.time() + 100
    monkeypatch.setattr(handler_module, "time", lambda: now)

    samples = [sample for family in registry.collect() for sample in family.samples]
    values = {
        (sample.name.removeprefix("sqlite_log_handler_"), sample.labels.get("cause")): sample.value
        for sample in samples
        if sample.labels["log"] == "app-log.db" and not sample.name.endswith("_created")
    }
    assert len(values) == len(samples)
    assert other.stats().oldest_queued_age < handler.stats().oldest_queued_age
    assert handler.stats().oldest_queued_age == values.pop(("oldest_queued_age_seconds", None))
    assert None is other.stats().last_commit_age
    assert 0 <= values.pop(("last_commit_age_seconds", None))
    assert 0 < values.pop(("queue_bytes", None))
    assert {
        ("records_seen_total", None): 12,
        ("records_written_total", None): 2,
        **{("records_dropped_total", cause): 6 if cause == "queue_full" else 0 for cause in CAUSES},
        ("records_truncated_total", None): 0,
        ("records_malformed_total", None): 0,
        ("queue_records", None): 4,
        ("queue_capacity_records", None): 7,
    } == values


@pytest.mark.parametrize("several", [False, True])
def test_opentelemetry(handler, make_handler, tmp_path, several):
    """
    A collection has the books, by the names of OpenTelemetry's semantic conventions; a drop has its cause.

    With several handlers it has those of each: the SDK passes over the instruments of a second call.
    """
    pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - may be missing
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    other = make_handler(tmp_path / "other.db", capacity=7)
    instrument([handler, other] if several else handler, provider.get_meter("test"))

    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert "{log_record}" == metric.unit
                for point in metric.data.data_points:
                    attributes = dict(point.attributes or {})
                    log = str(attributes["otel.component.name"]).removeprefix("sqlite_log_handler/")
                    found[log, metric.name, attributes.get("error.type")] = point.value
    provider.shutdown()

    expected = {
        **{("app-log.db", "otel.sdk.processor.log.processed", cause): 0 for cause in CAUSES},
        ("app-log.db", "otel.sdk.processor.log.processed", None): 2,
        ("app-log.db", "otel.sdk.processor.log.processed", "queue_full"): 5,
        ("app-log.db", "otel.sdk.processor.log.queue.size", None): 3,
        ("app-log.db", "otel.sdk.processor.log.queue.capacity", None): 3,
    }
    if several:
        expected |= {
            **{("other.db", "otel.sdk.processor.log.processed", cause): 0 for cause in CAUSES},
            ("other.db", "otel.sdk.processor.log.processed", None): 0,
            ("other.db", "otel.sdk.processor.log.queue.size", None): 0,
            ("other.db", "otel.sdk.processor.log.queue.capacity", None): 7,
        }
    assert expected == found
