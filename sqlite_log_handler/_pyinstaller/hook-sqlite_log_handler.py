"""
The package imports the half that reads when one of its names is asked for.
"""

hiddenimports = [f"sqlite_log_handler._read.{name}" for name in ("filters", "reader", "rows", "statistics", "top")]
