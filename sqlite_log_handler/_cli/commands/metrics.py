"""`sqlite-log metrics`: logs as text for Prometheus."""

import argparse

from sqlite_log_handler._cli import arguments
from sqlite_log_handler._cli.command import command
from sqlite_log_handler._cli.terminal import say, write_lines
from sqlite_log_handler._read.logs import Logs
from sqlite_log_handler._read.openmetrics import openmetrics


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add_files(parser, "logs, or folders of them")
    what = "openmetrics, or prometheus for readers of the older format, such as the textfile collector of node_exporter"
    arguments.add_output(parser, ("openmetrics", "prometheus"), what)


@command(
    _add_arguments,
    "Print records and drops by level and cause, the size of file and WAL, the time of the last record and the lag of "
    "forwarders, as OpenMetrics. All processes that write to a log are counted together. The counters never fall: "
    "retention leaves them as they are.",
    ("sqlite-log metrics app-log.db", "for one log"),
    (
        "sqlite-log metrics /var/log/app -o prometheus | sponge /srv/metrics/app.prom",
        "for all logs in a folder, for the textfile collector of node_exporter",
    ),
)
def run(options: argparse.Namespace) -> int:
    """Print the metrics. Returns 1 if we cannot read a log, which the metrics say as well."""
    logs = Logs([*filter(None, options.files)] or [arguments.file_of(options)])
    text, errors = openmetrics(logs.by_name(), older=options.output == "prometheus")
    write_lines([text.removesuffix("\n")])
    for error in errors:
        say(error)
    return 1 if errors else 0
