"""
How the documentation becomes a site: `sphinx-build -W -n docs site`.
"""

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

import sqlite_log_handler

project = "sqlite-log-handler"
author = "The sqlite-log-handler authors"
copyright = author  # noqa: A001 - Sphinx calls it so
release = version = sqlite_log_handler.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
default_role = "code"
smartquotes_action = "De"  # dashes and ellipses: quotes stay as they were typed
python_maximum_signature_line_length = 80
nitpicky = True
nitpick_ignore = [
    # Of the standard library, whose index would have to be fetched.
    ("py:class", "collections.abc.Callable"),
    ("py:class", "collections.abc.Iterable"),
    ("py:class", "collections.abc.Iterator"),
    ("py:class", "datetime.date"),
    ("py:class", "datetime.datetime"),
    ("py:class", "logging.LogRecord"),
    ("py:class", "os.PathLike"),
    # The keyword arguments of methods, which docs/reader.md lists.
    ("py:class", "sqlite_log_handler._read.filters.Filters"),
]

html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
copybutton_prompt_text = "$ "  # copied without it, and without the output below
copybutton_only_copy_prompt_lines = True

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_member_order = "bysource"
autoclass_content = "both"  # the options of the handler stand with its constructor, where editors look
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


PHONE = 30  # characters that a phone shows on a line of a table


class IndexOfTables(SphinxTransform):
    """Put the flags, options and columns that begin a row of a table into the index, so that the search finds them."""

    default_priority = 840  # before Sphinx collects the index

    def apply(self, **_: Any) -> None:
        """Add the entries of one page."""
        for row in self.document.findall(nodes.row):
            for literal in list(row[0].findall(nodes.literal)):
                name, _, rest = literal.astext().partition(" ")
                if rest and not name.startswith("-"):
                    continue
                place = nodes.make_id(f"entry-{name}")
                if place in self.document.ids:
                    place = f"entry-{self.env.new_serialno('entry')}"
                target = nodes.target("", "", ids=[place])
                self.document.note_explicit_target(target)
                literal.parent.insert(0, [addnodes.index(entries=[("single", name, place, "main", None)]), target])


class Widths(SphinxTransform):
    """Mark literals for site.css: "long" with a word that is too wide for a phone, "short" if all of it fits there."""

    default_priority = 840

    def apply(self, **_: Any) -> None:
        """Mark those of one page."""
        for literal in self.document.findall(nodes.literal):
            text = literal.astext()
            if max(map(len, text.split()), default=0) > PHONE:
                literal["classes"].append("long")
            elif len(text) <= PHONE:
                literal["classes"].append("short")


def mark_flags(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _doctree: nodes.document) -> None:
    """Mark the flags in blocks of code, which site.css keeps in one piece: a browser breaks a line behind a hyphen."""
    flag = re.compile(r"(?<=[\s'`\[>])--?[A-Za-z][\w-]*")
    blocks = re.compile(r"<pre>.*?</pre>", re.DOTALL)
    marked = blocks.sub(lambda block: flag.sub(r'<span class="flag">\g<0></span>', block[0]), context.get("body", ""))
    context["body"] = marked


def drop_generated(_app: Sphinx, _kind: str, _name: str, _item: object, _options: object, lines: list[str]) -> None:
    """Leave out what Python itself says of a named tuple and its fields."""
    lines[:] = [line for line in lines if not line.startswith(("Create new instance of ", "Alias for field number "))]


def setup(app: Sphinx) -> None:
    """Let Sphinx know what is above."""
    app.add_transform(IndexOfTables)
    app.add_transform(Widths)
    app.connect("autodoc-process-docstring", drop_generated)
    app.connect("html-page-context", mark_flags)
