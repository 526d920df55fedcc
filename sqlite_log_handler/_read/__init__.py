"""The way from a log file to Python objects: `LogReader`, its filters and what it counts."""
