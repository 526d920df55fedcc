"""
The arithmetic of docs/fleet.md: what a fleet of hosts that forward their logs makes of rows, requests, bytes and cores.

    python docs/fleet.py --rows 200 --disk-bytes 160 --hosts 10 5000

Every default but the rows was measured; docs/fleet.md says how. Put your own figures in their place.
"""

import argparse
from collections.abc import Sequence

SECONDS_A_DAY = 86_400

# Option, default, unit and meaning.
FIGURES = (
    ("rows", 50.0, "rows a second that one host logs, on average"),
    ("peak", 10.0, "times the average at the worst"),
    ("disk-bytes", 110.0, "bytes of a row in the log"),
    ("wire-bytes", 59.0, "bytes of a row on the wire, compressed"),
    ("request-bytes", 500.0, "bytes of a request beside its rows: headers, and the answer"),
    ("forward-us", 8.7, "microseconds of CPU for the forwarder and a row"),
    ("forward-request-us", 800.0, "the same for a request"),
    ("receiver-us", 1.1, "microseconds of CPU for the receiver and a row, without what it does with it"),
    ("receiver-request-us", 100.0, "the same for a request"),
    ("engine-bytes", 11.0, "bytes of a row in the engine"),
    ("batch", 8000.0, "rows in a request at most"),
    ("outage-hours", 24.0, "hours without a receiver that a host is to survive"),
    ("engine-days", 30.0, "days that the engine keeps"),
)


def lines(figures: dict[str, float], hosts: Sequence[int]) -> list[str]:
    """Do the arithmetic, and lay it out: first one host, then each fleet."""
    rows, peak = figures["rows"], figures["rows"] * figures["peak"]
    # One request a second, or as many as the rows need.
    requests = max(1.0, rows / figures["batch"])
    cpu = rows * figures["forward-us"] + requests * figures["forward-request-us"]
    spool = rows * figures["outage-hours"] * 3600 * figures["disk-bytes"]
    receiver = rows * figures["receiver-us"] + requests * figures["receiver-request-us"]
    wire = rows * figures["wire-bytes"] + requests * figures["request-bytes"]
    day = rows * SECONDS_A_DAY
    engine = day * figures["engine-days"] * figures["engine-bytes"]
    catch_up = 1e6 / figures["forward-us"]
    found = [
        f"one host, {rows:,.0f} rows/s, {peak:,.0f} at the worst",
        f"  in the log              {day * figures['disk-bytes'] / 1e9:,.2f} GB a day",
        f"  to survive the outage   {spool / 1e9:,.2f} GB for {figures['outage-hours']:,.0f} h (max_bytes)",
        f"  forwarder               {cpu / 1e4:,.2f} % of a core",
        f"  to catch up             {rows * figures['outage-hours'] * 3600 / (catch_up - rows) / 60:,.1f} min",
        "",
        "     hosts       rows/s  requests/s  receiver cores    Mbit/s  engine, rows/day  engine, TB",
    ]
    return found + [
        f"{count:>10,} {count * rows:>12,.0f} {count * requests:>11,.0f} {count * receiver / 1e6:>15,.2f} "
        f"{count * wire * 8 / 1e6:>9,.1f} {count * day:>17,.0f} {count * engine / 1e12:>11,.2f}"
        for count in hosts
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the figures, and print what follows from them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    for name, default, meaning in FIGURES:
        parser.add_argument(f"--{name}", type=float, default=default, help=f"{meaning} (default: {default:g})")
    parser.add_argument("--hosts", type=int, nargs="+", default=[10, 1_000, 100_000], help="sizes of fleets")
    options = vars(parser.parse_args(arguments))
    hosts = options.pop("hosts")
    print("\n".join(lines({name.replace("_", "-"): value for name, value in options.items()}, hosts)))


if __name__ == "__main__":
    main()
