"""What a log file is: its schema, the lock beside it, times and printable text. Everything else builds on this."""
