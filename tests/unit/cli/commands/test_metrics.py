"""
`metrics`: logs as text for Prometheus, judged by its own tools.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from pages import DOCS, blocks_of
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as older_families

import sqlite_log_handler


def promtool(*words, text=""):
    """Let Prometheus' own tool judge a text or a file, and return what it says."""
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed; Debian has it in the package prometheus")
    run = subprocess.run([tool, "check", *words], input=text, capture_output=True, encoding="utf-8", check=False)
    return run.returncode, run.stdout + run.stderr


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


def test_the_older_format(run):
    """
    `-o prometheus` has the same samples for readers of the older format, with the kind of each.

    The textfile collector of node_exporter reads no OpenMetrics: each counter had no kind and no help there.
    """
    _, lines = run("metrics")
    status, older = run("metrics", "-o", "prometheus")
    families = {family.name: family.type for family in older_families("\n".join([*older, ""]))}

    assert 0 == status
    assert [line for line in lines if line[0] != "#"] == [line for line in older if line[0] != "#"]
    assert "counter" == families["sqlite_log_records"] == families["sqlite_log_drops"]
    assert "# EOF" not in older


def test_promtool_finds_nothing_to_mend(run):
    """The linter of Prometheus accepts each name, kind and help."""
    _, lines = run("metrics", "-o", "prometheus")

    assert (0, "") == promtool("metrics", text="\n".join([*lines, ""]))


def test_promtool_accepts_the_configurations_of_the_page(tmp_path):
    """Prometheus takes the alert rules and the configuration that docs/metrics.md shows."""
    blocks = [block.code for block in blocks_of(DOCS / "metrics.md") if block.language == "yaml"]
    rules = [code for code in blocks if "groups" in yaml.safe_load(code)]
    scrapes = [code for code in blocks if "scrape_configs" in yaml.safe_load(code)]
    token = tmp_path / "token"
    token.write_text("secret")

    assert (2, 1) == (len(rules), len(scrapes))
    for number, code in enumerate(rules):
        (tmp_path / f"rules-{number}.yml").write_text(code)
        status, said = promtool("rules", str(tmp_path / f"rules-{number}.yml"))
        assert (0, True) == (status, "3 rules found" in said), said
    (tmp_path / "prometheus.yml").write_text(scrapes[0].replace("/etc/prometheus/sqlite-log.token", str(token)))
    status, said = promtool("config", str(tmp_path / "prometheus.yml"))
    assert 0 == status, said


def test_metrics_need_no_extra(shop, tmp_path):
    """
    Metrics are printed where only the package itself is installed.

    They needed Starlette, because the list of logs stood beside the page.
    """
    for name in ("starlette", "anyio", "uvicorn"):
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError(__name__)")
    package = os.path.dirname(os.path.dirname(sqlite_log_handler.__file__))
    done = subprocess.run(
        [sys.executable, "-m", "sqlite_log_handler", "metrics", str(shop)],
        env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{package}"},
        capture_output=True,
        check=False,
    )

    assert (0, b"") == (done.returncode, done.stderr)
