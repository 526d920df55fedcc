"""
What each command says in its help.
"""

from __future__ import annotations

import shlex

import pytest

from sqlite_log_handler._cli.main import COMMANDS, parse


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_examples(run, name):
    """The help of each command has examples, and each of them is understood."""
    _, lines = run(name, "--help")
    examples = [line.strip() for line in lines[lines.index("examples:") :] if line.startswith("  sqlite-log ")]

    assert examples
    assert max(len(line) for line in lines) <= 80
    for example in examples:
        assert parse(argparse_words(example))[0].name in {name, "show"}


def argparse_words(example):
    """Split an example as a shell does, up to a pipe or the next command."""
    words = shlex.split(example)[1:]
    for end in ("|", "&&"):
        if end in words:
            words = words[: words.index(end)]
    return words
