"""
`sqlite-log` and `python -m sqlite_log_handler`.
"""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, see `_cli.main`. Ctrl-C ends it with the same status while its modules are imported."""
    try:
        from sqlite_log_handler._cli.main import main  # noqa: PLC0415 - this takes most of the time of a short command

        return main(arguments)
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells count


if __name__ == "__main__":
    sys.exit(main())
