"""
What PyInstaller has to be told, which finds this folder by an entry point.
"""

import os


def get_hook_dirs() -> list[str]:
    """Name the folder of the hooks."""
    return [os.path.dirname(__file__)]
