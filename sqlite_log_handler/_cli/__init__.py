"""The command line: `sqlite-log`."""
