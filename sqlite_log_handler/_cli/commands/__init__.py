"""The commands of `sqlite-log`, one module each."""
