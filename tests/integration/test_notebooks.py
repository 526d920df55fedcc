"""
A Jupyter kernel, and cells that are run again.
"""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.needs("ipykernel", "nbclient", "jupyter")

# Runs the first cell three times, as somebody does who changes a line of it, and the second after each.
RERUN = """
import nbclient
import nbformat

notebook = nbformat.read("analysis.ipynb", as_version=4)
configures, logs = notebook.cells
threads = "[thread.name for thread in threading.enumerate()]"
counts = f"len(logging.getLogger().handlers), {threads}.count('sqlite_log_handler')"
notebook.cells.append(nbformat.v4.new_code_cell(f"import threading\\nprint({counts})"))
client = nbclient.NotebookClient(notebook, timeout=60)
with client.setup_kernel():
    for _ in range(3):
        for index, cell in enumerate(notebook.cells):
            client.execute_cell(cell, index)
        # The kernel sends what a cell prints in one piece or in several.
        print("".join(output.text for output in notebook.cells[-1].outputs).strip())
"""


def test_page(project):
    """The page can be followed word for word, and the cell's row is there."""
    project.follow()

    [[(_, level, message)]] = project.answers
    assert ("INFO", "loaded 1000 lines") == (level, message)


def test_a_cell_that_is_run_again(project):
    """However often the cell that configures logging is run, there is one handler, with one thread."""
    project.write()
    (project.folder / "rerun.py").write_text(RERUN, encoding="utf-8")

    printed = project.run("python rerun.py")

    assert ["1 1"] * 3 == printed.splitlines()[-3:]
    assert [(3,)] == project.query("SELECT count(*) FROM logs WHERE logger = 'analysis'", name="notebook-log.db")
