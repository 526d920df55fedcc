"""
The package imports the half that reads when one of its names is asked for. `reader` imports all that has such a name.
"""

hiddenimports = ["sqlite_log_handler._read.reader"]
