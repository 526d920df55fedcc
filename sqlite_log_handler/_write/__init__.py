"""The way of a record from `logger.info()` to a row in the file."""
