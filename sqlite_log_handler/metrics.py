"""
The books of a handler as metrics of the program that it runs in, for Prometheus and for OpenTelemetry.

    >>> from prometheus_client import REGISTRY
    >>> from sqlite_log_handler.metrics import prometheus_collector
    >>> REGISTRY.register(prometheus_collector(handler))

Nothing is counted here: each scrape reads `handler.stats()`, so the figures agree with the log. They are of this
process alone.
"""

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from sqlite_log_handler import SQLiteHandler

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

# https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/: what a processor of log records in an SDK tells.
_PROCESSED: Final = "otel.sdk.processor.log.processed"
_SIZE: Final = "otel.sdk.processor.log.queue.size"
_CAPACITY: Final = "otel.sdk.processor.log.queue.capacity"
_TYPE: Final = "sqlite_log_handler"
_UNIT: Final = "{log_record}"


def prometheus_collector(handler: SQLiteHandler) -> Any:
    """
    Return a collector that tells Prometheus what `handler.stats()` says, for `REGISTRY.register`.

        >>> REGISTRY.register(prometheus_collector(handler))

    Every sample has the label `log`, the name of the file. See docs/metrics.md for what there is.

    Args:
        handler: The handler to ask at each scrape.

    Raises:
        ModuleNotFoundError: prometheus_client is missing: `pip install "sqlite-log-handler[prometheus]"`.
    """
    from prometheus_client.core import CounterMetricFamily as Counter  # noqa: PLC0415 - of an extra
    from prometheus_client.core import GaugeMetricFamily as Gauge  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    log = os.path.basename(handler.filename)

    def family(kind: Any, name: str, text: str, value: float | None) -> Any:
        made = kind(f"sqlite_log_handler_{name}", text, labels=["log"])
        if value is not None:
            made.add_metric([log], value)
        return made

    class HandlerCollector(Collector):
        def collect(self) -> Iterator[Any]:
            stats = handler.stats()
            yield family(Counter, "records_seen", "Records that reached the handler.", stats.seen)
            yield family(Counter, "records_written", "Records committed to the file.", stats.written)
            dropped = Counter(
                "sqlite_log_handler_records_dropped", "Records dropped, by cause.", None, ["log", "cause"]
            )
            for cause, count in stats.dropped_by_cause.items():
                dropped.add_metric([log, cause], count)
            yield dropped
            yield family(Counter, "records_truncated", "Records cut to max_record_bytes.", stats.truncated)
            yield family(Counter, "records_malformed", "Records with a marker in place of a value.", stats.malformed)
            yield family(Gauge, "queue_records", "Records that wait for their commit.", stats.queued)
            yield family(Gauge, "queue_capacity_records", "Records that may wait.", handler.queue.capacity)
            yield family(Gauge, "queue_bytes", "Memory that the waiting records take, estimated.", stats.queued_bytes)
            oldest = stats.oldest_queued_age or 0.0
            yield family(Gauge, "oldest_queued_age_seconds", "How long the oldest record waits.", oldest)
            yield family(Gauge, "last_commit_age_seconds", "Time since the last commit.", stats.last_commit_age)

    return HandlerCollector()


def instrument(handler: SQLiteHandler, meter: "Meter") -> None:
    """
    Tell OpenTelemetry what `handler.stats()` says, by the names of its semantic conventions.

        >>> instrument(handler, opentelemetry.metrics.get_meter("sqlite_log_handler"))

    It makes `otel.sdk.processor.log.processed`, with `error.type` for drops, whose value is their cause, and
    `otel.sdk.processor.log.queue.size` and `.queue.capacity`. `otel.component.name` has the name of the file.

    Args:
        handler: The handler to ask at each collection.
        meter: What makes the instruments. Call this once for each handler.

    Raises:
        ModuleNotFoundError: The API of OpenTelemetry is missing: `pip install "sqlite-log-handler[otel]"`.
    """
    from opentelemetry.metrics import CallbackOptions, Observation  # noqa: PLC0415 - of an extra

    component = {
        "otel.component.type": _TYPE,
        "otel.component.name": f"{_TYPE}/{os.path.basename(handler.filename)}",
    }

    def processed(_: CallbackOptions) -> Iterator[Observation]:
        stats = handler.stats()
        yield Observation(stats.written, component)
        for cause, count in stats.dropped_by_cause.items():
            yield Observation(count, {**component, "error.type": cause})

    def single(value: Callable[[], float]) -> Callable[[CallbackOptions], list[Observation]]:
        return lambda _: [Observation(value(), component)]

    meter.create_observable_counter(
        _PROCESSED, [processed], unit=_UNIT, description="Log records written, and dropped with their cause"
    )
    meter.create_observable_up_down_counter(
        _SIZE, [single(lambda: handler.stats().queued)], unit=_UNIT, description="Log records that wait in the queue"
    )
    meter.create_observable_up_down_counter(
        _CAPACITY, [single(lambda: handler.queue.capacity)], unit=_UNIT, description="Log records that may wait"
    )
