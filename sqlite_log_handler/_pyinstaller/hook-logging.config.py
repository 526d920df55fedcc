"""
A program that configures logging may name the handler in a text, which PyInstaller does not read.
"""

hiddenimports = ["sqlite_log_handler"]
