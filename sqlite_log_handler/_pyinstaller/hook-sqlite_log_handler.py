"""
The package imports most of its names when they are asked for.
"""

from sqlite_log_handler import _MODULES

hiddenimports = [f"sqlite_log_handler.{module}" for module in sorted(set(_MODULES.values()))]
