"""
`metrics`: logs as OpenMetrics text.
"""

from __future__ import annotations

from prometheus_client.openmetrics.parser import text_string_to_metric_families


def test_metrics_of_a_log(run, shop):
    """`metrics` prints what the parser of Prometheus' client reads, for the log that is named or the usual one."""
    status, lines = run("metrics")
    families = {family.name: family for family in text_string_to_metric_families("\n".join([*lines, ""]))}

    assert (status, lines) == run("metrics", str(shop))
    assert 0 == status
    assert 15 == sum(sample.value for sample in families["sqlite_log_records"].samples)
    assert 15 == sum(sample.value for sample in families["sqlite_log_drops"].samples)


def test_a_log_that_cannot_be_read(run, shop, tmp_path):
    """A log that is not there is said so, in the metrics and by the status; the others have theirs."""
    error = f"sqlite-log: '{tmp_path}/none.db' does not exist: name the file of a SQLiteHandler\n"
    status, lines = run("metrics", str(shop), str(tmp_path / "none.db"), stderr=error)

    assert 1 == status
    assert {'sqlite_log_up{log="app-log.db"} 1', 'sqlite_log_up{log="none.db"} 0'} <= set(lines)
