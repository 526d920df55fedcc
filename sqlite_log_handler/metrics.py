"""
The books of a handler as metrics of the program that it runs in, for Prometheus and for OpenTelemetry.

    >>> from prometheus_client import REGISTRY
    >>> from sqlite_log_handler.metrics import prometheus_collector
    >>> REGISTRY.register(prometheus_collector(handler))

Nothing is counted here: each scrape reads `handler.stats()`, so the figures agree with the log. They are of this
process alone. Each cause of drops has its 0 from the start on: a series that began with a drop would not have risen.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from sqlite_log_handler import SQLiteHandler, Stats
from sqlite_log_handler._logfile.printable import printable
from sqlite_log_handler._logfile.schema import CAUSES

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

# https://opentelemetry.io/docs/specs/semconv/otel/sdk-metrics/: what a processor of log records in an SDK tells.
_PROCESSED: Final = "otel.sdk.processor.log.processed"
_SIZE: Final = "otel.sdk.processor.log.queue.size"
_CAPACITY: Final = "otel.sdk.processor.log.queue.capacity"
_TYPE: Final = "sqlite_log_handler"
_UNIT: Final = "{log_record}"


def prometheus_collector(handlers: SQLiteHandler | Sequence[SQLiteHandler]) -> Any:
    """
    Return a collector that tells Prometheus what `handler.stats()` says, for `REGISTRY.register`.

        >>> REGISTRY.register(prometheus_collector(handler))

    Every sample has the label `log`, the name of the file. See docs/metrics.md for what there is.

    Args:
        handlers: The handler to ask at each scrape, or several: a registry takes one collector of these metrics.

    Raises:
        ModuleNotFoundError: prometheus_client is missing: `pip install "sqlite-log-handler[prometheus]"`.
    """
    from prometheus_client.core import CounterMetricFamily as Counter  # noqa: PLC0415 - of an extra
    from prometheus_client.core import GaugeMetricFamily as Gauge  # noqa: PLC0415
    from prometheus_client.registry import Collector  # noqa: PLC0415

    logs: dict[str, list[SQLiteHandler]] = {}
    for log, handler in _by_name(handlers):
        logs.setdefault(log, []).append(handler)

    class HandlerCollector(Collector):
        def collect(self) -> Iterator[Any]:
            books = {log: [handler.stats() for handler in each] for log, each in logs.items()}

            def family(kind: Any, name: str, text: str, value: Callable[[Stats], float | None], of: Any = sum) -> Any:
                made = kind(f"sqlite_log_handler_{name}", text, labels=["log"])
                for log, each in books.items():
                    if numbers := [number for number in map(value, each) if number is not None]:
                        made.add_metric([log], of(numbers))
                return made

            yield family(Counter, "records_seen", "Records that reached the handler.", lambda s: s.seen)
            yield family(Counter, "records_written", "Records committed to the file.", lambda s: s.written)
            dropped = Counter(
                "sqlite_log_handler_records_dropped", "Records dropped, by cause.", None, ["log", "cause"]
            )
            for log, each in books.items():
                for cause in CAUSES:
                    dropped.add_metric([log, cause], sum(stats.dropped_by_cause.get(cause, 0) for stats in each))
            yield dropped
            yield family(Counter, "records_truncated", "Records cut to max_record_bytes.", lambda s: s.truncated)
            malformed = "Records with a marker in place of a value."
            yield family(Counter, "records_malformed", malformed, lambda s: s.malformed)
            yield family(Gauge, "queue_records", "Records that wait for their commit.", lambda s: s.queued)
            capacity = Gauge("sqlite_log_handler_queue_capacity_records", "Records that may wait.", None, ["log"])
            for log, several in logs.items():
                capacity.add_metric([log], sum(handler.queue.capacity for handler in several))
            yield capacity
            in_bytes = "Memory that the waiting records take, estimated."
            yield family(Gauge, "queue_bytes", in_bytes, lambda s: s.queued_bytes)
            oldest = "How long the oldest record waits."
            yield family(Gauge, "oldest_queued_age_seconds", oldest, lambda s: s.oldest_queued_age or 0.0, max)
            last = "Time since the last commit."
            yield family(Gauge, "last_commit_age_seconds", last, lambda s: s.last_commit_age, min)

    return HandlerCollector()


def instrument(handlers: SQLiteHandler | Sequence[SQLiteHandler], meter: "Meter") -> None:
    """
    Tell OpenTelemetry what `handler.stats()` says, by the names of its semantic conventions.

        >>> instrument(handler, opentelemetry.metrics.get_meter("sqlite_log_handler"))

    It makes `otel.sdk.processor.log.processed`, with `error.type` for drops, whose value is their cause, and
    `otel.sdk.processor.log.queue.size` and `.queue.capacity`. `otel.component.name` has the name of the file.

    Args:
        handlers: The handler to ask at each collection, or several.
        meter: What makes the instruments. Call this once for each meter: the SDK passes over a second instrument of a
            name.

    Raises:
        ModuleNotFoundError: The API of OpenTelemetry is missing: `pip install "sqlite-log-handler[otel]"`.
    """
    from opentelemetry.metrics import CallbackOptions, Observation  # noqa: PLC0415 - of an extra

    components = [
        ({"otel.component.type": _TYPE, "otel.component.name": f"{_TYPE}/{log}"}, handler)
        for log, handler in _by_name(handlers)
    ]

    def processed(_: CallbackOptions) -> Iterator[Observation]:
        for component, handler in components:
            stats = handler.stats()
            yield Observation(stats.written, component)
            for cause in CAUSES:
                yield Observation(stats.dropped_by_cause.get(cause, 0), {**component, "error.type": cause})

    def single(value: Callable[[SQLiteHandler], float]) -> Callable[[CallbackOptions], list[Observation]]:
        return lambda _: [Observation(value(handler), component) for component, handler in components]

    meter.create_observable_counter(
        _PROCESSED, [processed], unit=_UNIT, description="Log records written, and dropped with their cause"
    )
    meter.create_observable_up_down_counter(
        _SIZE, [single(lambda handler: handler.stats().queued)], unit=_UNIT, description="Log records that wait"
    )
    meter.create_observable_up_down_counter(
        _CAPACITY, [single(lambda handler: handler.queue.capacity)], unit=_UNIT, description="Log records that may wait"
    )


def _by_name(handlers: SQLiteHandler | Sequence[SQLiteHandler]) -> list[tuple[str, SQLiteHandler]]:
    """Return the handlers with the names of their files, or the paths of files that share a name."""
    several = [handlers] if isinstance(handlers, SQLiteHandler) else handlers
    names = [os.path.basename(path) for path in {handler.filename for handler in several}]
    return [
        # A name that is not UTF-8 would be an error for all metrics of the program.
        (printable(name if names.count(name) == 1 else handler.filename), handler)
        for handler in several
        for name in [os.path.basename(handler.filename)]
    ]
