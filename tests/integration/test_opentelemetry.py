"""
OpenTelemetry's instrumentation of `logging`.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("opentelemetry.sdk", "opentelemetry.instrumentation.logging")

FACTORY = """
import orders

with orders.trace.get_tracer("shop").start_as_current_span("pay") as span:
    print(format(span.get_span_context().trace_id, "032x"), format(span.get_span_context().span_id, "016x"))
    orders.logger.warning("in a span")
"""


def test_page(project):
    """The page can be followed word for word: the rows of a trace are found, and no others."""
    project.follow()

    [[(_, message, span)]] = project.answers
    assert "order paid" == message
    assert 16 == len(span)
    outside = "SELECT message FROM logs WHERE json_extract(attributes, '$.otelTraceID') IS NULL"
    assert [("started",)] == project.query(outside)


def test_ids(project):
    """The ids that are stored are those of the trace and of the span, as everybody else writes them."""
    project.write()

    trace, span = project.python(FACTORY).split()

    assert {"otelTraceID": trace, "otelSpanID": span}.items() <= project.attributes("message = 'in a span'").items()
