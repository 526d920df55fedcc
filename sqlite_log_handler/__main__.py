"""
`python -m sqlite_log_handler`: the command line, with the demo handed to it.
"""

import sys
from collections.abc import Callable, Sequence

from sqlite_log_handler import _cli


def demo(files: Sequence[str], database: str | None, write: Callable[[str], None]) -> int:
    """
    Run the demo. It is imported here and not at the top: commands that read need nothing of the half that writes.
    """
    from sqlite_log_handler import _demo  # noqa: PLC0415 - see above

    return _demo.run(files, database, write)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command line and return its exit status.
    """
    return _cli.main(arguments, demo=demo)


if __name__ == "__main__":
    sys.exit(main())
