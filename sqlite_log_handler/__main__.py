"""
`sqlite-log` and `python -m sqlite_log_handler`.
"""

import sys

from sqlite_log_handler._cli.main import main

if __name__ == "__main__":
    sys.exit(main())
