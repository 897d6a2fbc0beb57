"""The layers of docs/architecture.md, held by reading every import and cimport of ours.

A part is a module or folder directly under engine/, or peer/, or fuse/. Beside the table: an underscored name
stays inside its part, no folder is imported under its own name, and csrc/ is plain C without Python.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

BASE = {"errors", "config", "clock", "durable", "metrics"}
JOINED_BY_CACHE = BASE | {"settings", "store", "meta", "ufs", "remote"}
BELOW_CLI = JOINED_BY_CACHE | {"cache", "opening", "peer", "api", "fuse", "forebay", "whatif"}

# Part -> parts that it may import beside itself. "forebay" is the public list, engine/__init__.py. Any part
# of the base may raise an error of ours; that apart, the base imports nothing.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "clock": {"errors"},
    "durable": {"errors"},
    "metrics": {"errors"},
    "settings": {"errors", "config"},
    "store": BASE,
    "meta": BASE,
    "ufs": BASE,
    "remote": BASE,
    "cache": JOINED_BY_CACHE,
    "peer": BASE | {"cache", "remote"},
    "api": BASE | {"cache", "opening"},  # a URL's or a worker's options open a cache
    "fuse": BASE | {"cache"},
    "whatif": BASE | {"cache"},
    "opening": BASE | {"settings", "remote", "cache", "peer"},
    "forebay": JOINED_BY_CACHE | {"cache", "opening", "peer"},
    "cli": BELOW_CLI,
    "testing": BELOW_CLI,
    "__main__": {"cli"},
}

FOLDERS = {"engine": "forebay", "peer": "forebay.peer", "fuse": "forebay.fuse"}

CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<module>[.\w]+)[ \t]+c?import[ \t]+(?P<names>\([^)]*\)|[^\n#]+)"
    r"|c?import[ \t]+(?P<modules>[^\n#]+))",
    re.MULTILINE,
)
IMPORT_FUNCTIONS = ("import_module", "__import__")
PYTHON_HEADER = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"]Python\.h[>\"]", re.MULTILINE)


@dataclass(frozen=True)
class Import:
    """One imported thing: ``import module`` where name is None, else ``from module import name``."""

    line: int
    module: str
    name: str | None = None


def python_imports(text: str, package: str) -> Iterator[Import]:
    """Yield the imports of Python source, wherever they stand, import_module("...") included."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = absolute("." * node.level + (node.module or ""), package)
            yield from (Import(node.lineno, module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in IMPORT_FUNCTIONS:
            names = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
            yield from (Import(node.lineno, name) for name in names if isinstance(name, str))


def cython_imports(text: str, package: str) -> Iterator[Import]:
    """Yield the imports and cimports of Cython source."""
    for match in CYTHON_IMPORT.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        if match["module"] is None:
            yield from (Import(line, item.split()[0]) for item in match["modules"].split(","))
        else:
            items = match["names"].strip("() \t\n").split(",")
            module = absolute(match["module"], package)
            yield from (Import(line, module, item.split()[0]) for item in items if item.strip())


def absolute(module: str, package: str) -> str:
    """Resolve a module name with leading dots against the package that it stands in."""
    rest = module.lstrip(".")
    level = len(module) - len(rest)
    if level == 0:
        return module
    base = package.split(".")[: len(package.split(".")) - level + 1]
    return ".".join([*base, rest] if rest else base)


def part_of(module: str) -> str:
    """Name the part that a module of ours belongs to."""
    names = module.split(".")
    return "forebay" if len(names) == 1 else names[1]


def module_of(path: Path, root: Path) -> tuple[str, str]:
    """Return the import name of a source file, and of the package that its relative imports start from."""
    folder, *names = path.relative_to(root).with_suffix("").parts
    full = ".".join([FOLDERS[folder], *names])
    module = full.removesuffix(".__init__")
    return module, full.rpartition(".")[0]


def complaint(part: str, item: Import) -> str | None:
    """Say what is wrong with one import of a part, or None."""
    top = item.module.partition(".")[0]
    if top in FOLDERS:
        return f"imports the folder {top}/ under its own name, a second copy"
    if top != "forebay":
        return None
    target = item.module
    if target == "forebay" and item.name is not None:
        if item.name == "__version__":
            return None
        if item.name in MAY_IMPORT:
            target = f"forebay.{item.name}"
    into = part_of(target)
    if into == part:
        return None
    if into not in MAY_IMPORT[part]:
        return f"{part} imports {into}"
    names = [*item.module.split("."), item.name or ""]
    if any(name.startswith("_") and not name.endswith("__") for name in names):
        return f"{part} imports a private name of {into}"
    return None


def layer_violations(root: Path) -> list[str]:
    """Hold every module below engine/, peer/ and fuse/ to the table."""
    found = []
    for path in sources(root):
        module, package = module_of(path, root)
        part = part_of(module)
        if part not in MAY_IMPORT:
            found.append(f"{path.relative_to(root)}: {part} is not in the table")
            continue
        reader = python_imports if path.suffix in (".py", ".pyi") else cython_imports
        found += [
            f"{path.relative_to(root)}:{item.line}: {reason}"
            for item in reader(path.read_text(), package)
            if (reason := complaint(part, item))
        ]
    return found


def python_in_c(root: Path) -> list[str]:
    """List the files of csrc/ that include Python's header."""
    files = sorted((root / "csrc").rglob("*.[ch]"))
    return [str(path.relative_to(root)) for path in files if PYTHON_HEADER.search(path.read_text())]


def sources(root: Path) -> list[Path]:
    """List our Python and Cython sources."""
    suffixes = (".py", ".pyi", ".pyx", ".pxd")
    return [
        path for folder in FOLDERS for path in sorted((root / folder).rglob("*")) if path.suffix in suffixes
    ]


def test_every_import_keeps_to_the_table(repository: Path) -> None:
    assert layer_violations(repository) == []


def test_all_kinds_of_source_are_read(repository: Path) -> None:
    read = {str(path.relative_to(repository)) for path in sources(repository)}
    assert {"engine/__init__.py", "engine/store/_store.pyx", "peer/__init__.py", "fuse/__init__.py"} <= read


def test_c_knows_nothing_of_python(repository: Path) -> None:
    assert list((repository / "csrc").rglob("*.c"))
    assert python_in_c(repository) == []


def plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("engine/errors.py", "import forebay.config", "errors imports config"),
        ("engine/clock.py", "from forebay.metrics import Counter", "clock imports metrics"),
        ("engine/store/x.py", "from forebay.meta import Catalog", "store imports meta"),
        ("engine/store/__init__.py", "from ..meta import Catalog", "store imports meta"),
        ("engine/store/deep/x.py", "from ...ufs import s3", "store imports ufs"),
        ("engine/meta/x.py", "from forebay import store", "meta imports store"),
        ("engine/meta/x.py", "def f():\n    import forebay.ufs.s3", "meta imports ufs"),
        ("engine/ufs/x.py", "importlib.import_module('forebay.store')", "ufs imports store"),
        ("engine/ufs/x.py", "from forebay import BlockStore", "ufs imports forebay"),
        ("engine/remote.py", "from forebay.store import View", "remote imports store"),
        ("engine/cache/cache.py", "from forebay.peer import Group", "cache imports peer"),
        ("engine/cache/read.py", "from forebay.cli import main", "cache imports cli"),
        (
            "engine/cache/cache.py",
            "from forebay.store._store import View",
            "cache imports a private name of store",
        ),
        ("engine/cache/cache.py", "from forebay.store import _View", "cache imports a private name of store"),
        ("engine/api/hdfs.py", "from forebay.store import View", "api imports store"),
        ("peer/server.py", "from forebay.ufs import s3", "peer imports ufs"),
        ("peer/server.py", "from . import x\nfrom .. import store", "peer imports store"),
        ("fuse/mount.py", "from forebay.remote import Remote", "fuse imports remote"),
        ("engine/cli/serve.py", "from forebay.testing import proxy", "cli imports testing"),
        ("engine/testing/x.py", "from forebay.cli import main", "testing imports cli"),
        ("engine/cache/cache.py", "import engine.store", "imports the folder engine/ under its own name"),
        ("engine/helpers.py", "", "helpers is not in the table"),
        ("engine/store/_store.pyx", "from forebay.meta cimport c_meta", "store imports meta"),
        ("engine/store/_store.pyx", "cimport forebay.meta.c_meta as m", "store imports meta"),
        ("engine/store/_store.pxd", "from ..meta cimport (\n    a,\n    b,\n)", "store imports meta"),
        ("engine/store/_store.pyi", "from forebay.cache import Cache", "store imports cache"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, name: str, text: str, reason: str) -> None:
    plant(tmp_path, name, text)
    assert reason in "\n".join(layer_violations(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("engine/config.py", "from forebay.errors import ConfigError"),
        ("engine/store/__init__.py", "from forebay.store._store import BlockStore\nfrom . import _pool"),
        ("engine/store/_store.pyx", "from libc.stdio cimport FILE\nfrom . cimport c_store\nimport os, sys"),
        ("engine/meta/x.py", "from forebay import __version__, errors"),
        ("engine/cache/read.py", "from forebay.cache import Cache\nfrom .store import View"),
        ("engine/cli/ls.py", "import forebay\nfrom forebay import Cache\nimport click"),
        ("engine/__main__.py", "from forebay.cli import main"),
        ("peer/server.py", "from forebay.peer import ring\nfrom forebay.remote import Remote\nimport fusepy"),
    ],
)
def test_what_the_table_allows_is_let_pass(tmp_path: Path, name: str, text: str) -> None:
    plant(tmp_path, name, text)
    assert layer_violations(tmp_path) == []


def test_planted_python_in_c_is_found(tmp_path: Path) -> None:
    plant(tmp_path, "csrc/src/x.c", "#include <stdint.h>\n# include <Python.h>\n")
    assert python_in_c(tmp_path) == ["csrc/src/x.c"]
