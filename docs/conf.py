"""
How the documentation becomes a site: `sphinx-build -W -n docs site`.
"""

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
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
