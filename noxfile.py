"""
Everything that can be checked or built, by name: `nox --list` shows the sessions, `nox -s unit` runs one of them.

Plain `nox` runs what is worth running before each commit; `.ci/run` runs every session of the tag "ci".
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import nox

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parent
DIST = ROOT / "dist"

nox.needs_version = ">=2024.10.9"  # the first that knows `requires`
nox.options.sessions = ["lint", "unit"]
nox.options.reuse_venv = "yes"

README_COMMANDS = {
    "demo": "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/sqlite-log demo",
    "tests": 'python3 -m venv .venv && .venv/bin/pip install ".[test]" && .venv/bin/python -m pytest',
}

# What the tests read. Not the package: the only one they can import is the installed wheel.
SUITE = ["tests", "docs", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "pyproject.toml"]

IDENTIFY = """
import json, sqlite3, sys, sysconfig
usable = sys.implementation.name == "cpython" and sys.version_info >= (3, 11)
*version, level, serial = sys.version_info
build = ("" if level == "final" else f"-{level}{serial}") + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else "")
print(json.dumps([usable, version, build, sys._base_executable]))
"""

ALONE = """
import logging, sqlite3
from sqlite_log_handler import SQLiteHandler
logging.getLogger().addHandler(SQLiteHandler("app-log.db"))
logging.getLogger("shop").warning("stock is low")
logging.shutdown()
connection = sqlite3.connect("app-log.db")
assert connection.execute("SELECT message FROM logs").fetchall() == [("stock is low",)]
connection.close()
"""


def find_interpreters() -> dict[str, str]:
    """
    Find every CPython from 3.11 up that has sqlite3, on the path and in pyenv: version -> executable, oldest first.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [Path(sys.executable), *sorted(pyenv.glob("*/bin/python"))]
    for folder in os.environ["PATH"].split(os.pathsep):
        candidates += [file for file in Path(folder).glob("python3*") if re.fullmatch(r"python[\d.]+t?", file.name)]
    found: dict[tuple[Any, ...], str] = {}
    for candidate in candidates:
        run = subprocess.run([candidate, "-I", "-c", IDENTIFY], capture_output=True, check=False)
        if run.returncode == 0:  # not 0 without sqlite3, or for a shim of a Python that is not installed
            usable, version, build, executable = json.loads(run.stdout)
            if usable:
                found.setdefault((*version, build), os.path.realpath(executable))
    return {".".join(map(str, version)) + build: found[*version, build] for *version, build in sorted(found)}


INTERPRETERS = find_interpreters()
# The newest that is released: other packages have no wheels for the rest yet.
NEWEST = next(version for version in reversed(INTERPRETERS) if re.fullmatch(r"[\d.]+", version))
# The oldest of each minor version, with a GIL and without.
EACH = {(*version.split(".")[:2], version[-1] == "t"): version for version in reversed(INTERPRETERS)}
BASE = os.path.realpath(sys._base_executable)  # type: ignore[attr-defined]  # noqa: SLF001 - of a virtual environment
# The one that runs nox.
DEFAULT = next(version for version, executable in INTERPRETERS.items() if executable == BASE)


def on(*versions: str) -> Callable[..., Any]:
    """Run a session on these interpreters."""
    return nox.parametrize("python", [nox.param(INTERPRETERS[version], id=version) for version in versions])


def run_suite(session: nox.Session, *arguments: str) -> None:
    """Test the installed wheel, in a folder that has the tests and not the package."""
    with TemporaryDirectory() as folder, session.chdir(folder):
        for name in SUITE:
            session.run("cp", "-R", str(ROOT / name), folder, external=True, log=False)
        session.run("python", "-c", "import sqlite3; print('SQLite', sqlite3.sqlite_version)")
        session.run("python", "-m", "pytest", *arguments)


def built(ending: str) -> str:
    """Find what the session `dist` has built."""
    [file] = DIST.glob(f"*{ending}")
    return str(file)


@nox.session(tags=["ci"])
def lint(session: nox.Session) -> None:
    """Check style, layout and types."""
    session.install("--editable", ".[dev]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """Run the quick tests of the modules, in half a minute, and name the slowest."""
    session.install("--editable", ".[test]")
    # With bytecode, or each process would compile all that it imports.
    bytecode = {"PYTHONDONTWRITEBYTECODE": None}
    session.run("python", "-m", "pytest", "-n2", "--durations=5", "tests/unit", *session.posargs, env=bytecode)


@nox.session(tags=["ci"])
@nox.parametrize("command", [nox.param(command, id=name) for name, command in README_COMMANDS.items()])
def readme(session: nox.Session, command: str) -> None:
    """
    Type each of the README's two commands into a copy of the checkout.

    That of the tests runs those of one folder: the session `tests` runs them all.
    """
    if command not in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        session.error(f"README.md has no line that reads exactly: {command}")
    with TemporaryDirectory() as folder, session.chdir(folder):
        left_out = shutil.ignore_patterns(".git", ".*_cache", ".nox", ".venv", "build", "dist", "*.db*")
        shutil.copytree(ROOT, folder, ignore=left_out, dirs_exist_ok=True)
        few = {"PYTEST_ADDOPTS": "tests/unit/logfile"}
        session.run("bash", "-euo", "pipefail", "-c", command, external=True, env=few)


def build(session: nox.Session, source: Path) -> None:
    """Build the sdist of a checkout, and the wheel from it, and check them as a package index would."""
    session.install(".[release]")
    shutil.rmtree(DIST, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(DIST), str(source), silent=True)
    session.run("twine", "check", "--strict", built(".whl"), built(".tar.gz"))
    session.run("validate-pyproject", str(source / "pyproject.toml"))
    session.run("python", "-c", STRAYS, built(".whl"))


@nox.session(tags=["ci"])
def dist(session: nox.Session) -> None:
    """Build the sdist and the wheel of this checkout, and check them."""
    build(session, ROOT)


STRAYS = r"""
import re, sys, zipfile
names = zipfile.ZipFile(sys.argv[1]).namelist()
ours = re.compile(r"sqlite_log_handler(/|-[^/]+\.(dist-info|data/data/share/man)/)")
strays = [name for name in names if not ours.match(name)]
sys.exit(f"the wheel holds more than the package: {strays}" if strays else 0)
"""


def prepare(folder: Path, url: str, version: str) -> list[str]:
    """
    Make a copy of a commit what is released, and return what is missing for that.

    The changelog gets its date, and the links of README.md lead to the repository, because a package index has no other
    file of it. The paths of these links are those of GitHub, which GitLab understands too.
    """
    changelog, readme, project = [folder / name for name in ("CHANGELOG.md", "README.md", "pyproject.toml")]
    today = dt.datetime.now(dt.UTC).date()
    history, changed = re.subn(
        rf"^(## \[{re.escape(version)}\]) - (?:Unreleased|\d{{4}}-\d\d-\d\d)$",
        rf"\1 - {today}",
        changelog.read_text(encoding="utf-8"),
        flags=re.MULTILINE,
    )
    changelog.write_text(history, encoding="utf-8")
    text = readme.read_text(encoding="utf-8")
    missing = [
        f"{page.name} still says how to install the package before its first release"
        for page in (readme, folder / "docs" / "index.md")
        if "first release is" in page.read_text(encoding="utf-8")
    ]
    if not changed:
        missing.append(f"CHANGELOG.md has no section `## [{version}] - Unreleased`")
    if not url:
        return [*missing, "the public address of the repository, to which README.md links: give it with --url"]
    kinds = {"!": "raw", "": "blob"}  # an image, and a page

    def absolute(link: re.Match[str]) -> str:
        return f"{link[1]}{link[2]}({url}/{kinds[link[1]]}/v{version}/{link[3]})"

    text = re.sub(r"(!?)(\[[^]]*\])\((?!https?:|#)([^)]+)\)", absolute, text)
    readme.write_text(text, encoding="utf-8")
    urls = {"Source": url, "Documentation": f"{url}/blob/v{version}/docs/index.md"}
    urls["Changelog"] = f"{url}/blob/v{version}/CHANGELOG.md"
    with project.open("a", encoding="utf-8") as file:
        file.write("\n[project.urls]\n" + "".join(f'{name} = "{address}"\n' for name, address in urls.items()))
    return missing


@nox.session
def release(session: nox.Session) -> None:
    """Build what a release would be, and say what is missing: `-- --url URL`; `--upload` as well releases it."""
    parser = argparse.ArgumentParser(prog="nox -s release --")
    parser.add_argument("--url", default="", help="the public address of the repository")
    parser.add_argument("--upload", action="store_true", help="upload it, commit the changelog's date, and tag that")
    options = parser.parse_args(session.posargs)
    [version] = re.findall(
        r'^__version__ = "(.*)"', (ROOT / "sqlite_log_handler/__init__.py").read_text(), re.MULTILINE
    )
    tag = f"v{version}"

    def git(*arguments: str) -> str:
        return str(session.run("git", *arguments, external=True, silent=True, log=False)).strip()

    with TemporaryDirectory() as folder:
        source = Path(folder, "source")
        source.mkdir()
        git("archive", "--output", f"{folder}/commit.tar", "HEAD")
        session.run("tar", "-xf", f"{folder}/commit.tar", "-C", str(source), external=True, log=False)
        missing = prepare(source, options.url.rstrip("/"), version)
        build(session, source)
        changelog = (source / "CHANGELOG.md").read_text(encoding="utf-8")
        (ROOT / "build").mkdir(exist_ok=True)
        page = ROOT / "build" / "readme.html"
        session.run("python", "-m", "readme_renderer", str(source / "README.md"), "-o", str(page), log=False)
    lost = re.findall(r'(?:href|src)="((?!https?:|#)[^"]*)"', page.read_text(encoding="utf-8"))
    if options.url and lost:
        missing.append(f"{len(lost)} links of README.md lead nowhere on a package index, such as {lost[0]}")
    if git("status", "--porcelain"):
        missing.append("a commit of all changes: the build has those of the last commit")
    if git("tag", "--list", tag):
        missing.append(f"a new version: the tag {tag} exists")

    session.log(f"{version} of commit {git('rev-parse', 'HEAD')}, built by CPython {DEFAULT}")
    for file in sorted(DIST.iterdir()):
        session.log(f"{file.name}  sha256 {hashlib.sha256(file.read_bytes()).hexdigest()}")
    session.log("the README as a package index shows it: build/readme.html")
    for line in missing:
        session.warn(f"missing: {line}")
    if missing:
        session.error("this cannot be released")
    if not options.upload:
        session.log("all is there; nothing was uploaded or changed: --upload does that")
        return
    session.run("twine", "upload", built(".whl"), built(".tar.gz"))
    (ROOT / "CHANGELOG.md").write_text(changelog, encoding="utf-8")
    if git("status", "--porcelain"):
        git("commit", "--message", f"Release {version}", "CHANGELOG.md")
    git("tag", tag)
    session.log(f"uploaded; now push it: git push origin HEAD {tag}")


@nox.session(tags=["ci"])
def docs(session: nox.Session) -> None:
    """Build the site into build/site; a warning is an error."""
    session.install(".[docs]")
    options = ["--quiet", "--fail-on-warning", "--keep-going", "--nitpicky", "--fresh-env"]
    session.run("sphinx-build", *options, "-b", "html", "docs", "build/site")
    session.run("python", "-c", SEARCH)


SEARCH = r"""
import json, re, sys
from pathlib import Path
index = json.loads(Path("build/site/searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
text = Path("docs/command-line.md").read_text() + Path("docs/reference.md").read_text()
rows = re.findall(r"^\| `(-[^` ]+|[^` ]+(?=`))", text, re.MULTILINE)
missing = sorted({row.lower() for row in rows} - {entry.lower() for entry in index["indexentries"]})
sys.exit(f"the search of the site does not find: {missing}" if missing or not rows else 0)
"""


@nox.session(tags=["ci"], requires=["dist"])
@on(*dict.fromkeys([*reversed(EACH.values()), NEWEST]))
def tests(session: nox.Session) -> None:
    """
    Test the wheel on each minor version of Python: alone, then with every test that needs no other program.

    The slow ones run on the newest interpreter only, because they take four minutes: `-- --slow` runs them on another.
    """
    wheel = built(".whl")
    session.install(wheel)
    with TemporaryDirectory() as folder, session.chdir(folder):
        said = session.run("python", "-X", "dev", "-W", "error", "-c", ALONE, silent=True)
    if said:
        session.error(f"alone, the package says: {said}")
    # Rather an older release than one that has to be compiled: not every package has wheels for every interpreter.
    session.install("--prefer-binary", f"{wheel}[otlp,test]")
    slow = ["--slow"] if session.python == INTERPRETERS[NEWEST] else []
    run_suite(session, *slow, "-m", "not forward and not browser", *session.posargs)


@nox.session(tags=["ci"], requires=["dist"])
@on(NEWEST)
def integration(session: nox.Session) -> None:
    """Use the wheel in the programs of docs/integrations."""
    session.install(f"{built('.whl')}[integration]")
    run_suite(session, *(session.posargs or ["tests/integration"]))


@nox.session(tags=["ci"], requires=["dist"])
def browser(session: nox.Session) -> None:
    """Use the page of `sqlite-log serve` in a real Chromium."""
    session.install(f"{built('.whl')}[test]")
    run_suite(session, "--slow", *(session.posargs or ["tests/browser"]))


@nox.session(tags=["ci"], requires=["dist"])
def forward(session: nox.Session) -> None:
    """Forward logs to real receivers and engines."""
    session.install(f"{built('.whl')}[test-forward]")
    run_suite(session, *(session.posargs or ["tests/forward"]))
