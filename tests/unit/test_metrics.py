"""
The books of a handler as metrics, read by the real clients.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

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
    """A scrape has the books, as Prometheus reads them."""
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
        ("records_dropped_total", "queue_full"): 5,
        ("records_truncated_total",): 0,
        ("records_malformed_total",): 0,
        ("queue_records",): 3,
        ("queue_capacity_records",): 3,
    } == values


def test_opentelemetry(handler):
    """A collection has the books, by the names of OpenTelemetry's semantic conventions; a drop has its cause."""
    pytest.importorskip("opentelemetry.sdk.metrics")
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - may be missing
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415

    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    instrument(handler, provider.get_meter("test"))

    found = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                assert "{log_record}" == metric.unit
                for point in metric.data.data_points:
                    assert "sqlite_log_handler/app-log.db" == dict(point.attributes or {})["otel.component.name"]
                    found[metric.name, dict(point.attributes or {}).get("error.type")] = point.value
    provider.shutdown()

    assert {
        ("otel.sdk.processor.log.processed", None): 2,
        ("otel.sdk.processor.log.processed", "queue_full"): 5,
        ("otel.sdk.processor.log.queue.size", None): 3,
        ("otel.sdk.processor.log.queue.capacity", None): 3,
    } == found
