"""The package, built and installed in each way that people install it, used from a fresh environment.

Everything is taken from the environment that runs the tests; nothing is downloaded. Each way builds the
extension once, from a copy of the sources, so the checkout is left alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

# What a build may read. Folders that others write while tests run are left out.
SOURCES = ("CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py", "csrc")
PACKAGES = {"engine": "forebay", "peer": "forebay.peer", "fuse": "forebay.fuse"}
BUILT = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")

# A put and a get, a look-up table and a placement go through classes whose C fields are declared in a .pxd:
# where that file was not found at build time, the fields are missing and this fails.
TOUCH_A_C_FIELD = """
import sys
import forebay, forebay.peer, forebay.fuse
with forebay.BlockStore(sys.argv[1], tiers=[forebay.Tier(sys.argv[2], "16MiB", medium="MEM")]) as store:
    assert store.put(b"key", b"some bytes")
    with store.get(b"key") as view:
        assert bytes(view) == b"some bytes"
from forebay.meta import ChangeCounter, Entry, Recent
recent, entry = Recent(1 << 20), Entry("path", 7, 5, "version", False, 1)
recent.put("dataset/path", entry, ChangeCounter(bytearray(8), 0), 0)
assert recent.get("dataset/path").entry == entry
from forebay.peer._placement import WEIGHT_ONE, Placement
assert Placement(("one",), [bytes(16)], [WEIGHT_ONE], [0]).owners("dataset", "path", 0, 1) == ("one",)
print(forebay.__file__)
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees the dependencies of the running one, but not its forebay."""

    path: Path

    def run(self, *arguments: str | Path) -> str:
        """Run a program of the environment, away from the checkout, and return what it printed."""
        program = self.path / "bin" / arguments[0]
        # Settings of pip from outside would bring in indexes; settings of Python, other modules.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTHON"))}
        done = subprocess.run(
            [program, *arguments[1:]],
            cwd=self.path,
            env=kept | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def install(self, *arguments: str | Path) -> None:
        """Install with the build tools at hand; pip checks that all dependencies are there."""
        self.run("python", "-m", "pip", "install", "--no-build-isolation", *arguments)


@pytest.fixture(scope="module")
def dependencies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that links to everything installed in the running environment, forebay apart."""
    folder = tmp_path_factory.mktemp("dependencies")
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(installed).iterdir():
            if "forebay" not in entry.name and entry.suffix != ".pth":
                (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def environment(tmp_path: Path, dependencies: Path) -> Environment:
    path = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", path], check=True)
    packages = sysconfig.get_path("purelib", "venv", {"base": str(path)})
    (Path(packages) / "dependencies.pth").write_text(f"{dependencies}\n")
    return Environment(path)


@pytest.fixture
def sources(tmp_path: Path, repository: Path) -> Path:
    """A copy of what a build may read."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for name in (*SOURCES, *PACKAGES):
        path = repository / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=BUILT)
        else:
            shutil.copy(path, folder)
    return folder


def use(environment: Environment, memory_path: Path) -> Path:
    """Use the installed package; return the file it was imported from."""
    cache = environment.path / "cache"
    printed = environment.run("python", "-c", TOUCH_A_C_FIELD, cache, memory_path)
    assert environment.run("forebay", "--help").startswith("Usage: forebay ")
    assert environment.run("python", "-m", "forebay", "--help").startswith("Usage: ")
    return Path(printed.strip())


def test_install(environment: Environment, sources: Path, memory_path: Path) -> None:
    environment.install(sources)
    assert use(environment, memory_path).is_relative_to(environment.path / "lib")


def test_editable_install(environment: Environment, sources: Path, memory_path: Path) -> None:
    environment.install("--editable", sources)
    assert use(environment, memory_path) == sources / "engine" / "__init__.py"
    (sources / "engine" / "added_later.py").write_text("seen = True\n")
    assert environment.run("python", "-c", "from forebay.added_later import seen; print(seen)") == "True\n"


def test_sdist_to_wheel(environment: Environment, sources: Path, memory_path: Path) -> None:
    output = environment.path
    environment.run("python", "-m", "build", "--sdist", "--no-isolation", "--outdir", output, sources)
    (sdist,) = output.glob("forebay-*.tar.gz")
    with tarfile.open(sdist) as archive:
        sent = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "csrc/include/forebay/store.h", "engine/store/_store.pyx", "engine/py.typed"} <= sent
    assert {"engine/meta/_recent.pyx", "engine/meta/_recent.pxd", "engine/meta/c_recent.pxd"} <= sent
    assert {"peer/_placement.pyx", "peer/_placement.pxd", "peer/c_placement.pxd"} <= sent
    assert not [name for name in sent if name.endswith(".so") or name.startswith("build/")]

    options = ("--no-deps", "--no-build-isolation", "--wheel-dir", output)
    environment.run("python", "-m", "pip", "wheel", *options, sdist)
    (wheel,) = output.glob("forebay-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("forebay/")}
    assert {"forebay/py.typed", "forebay/store/_store.pyi", "forebay/peer/__init__.py"} <= packed
    assert {"forebay/meta/_recent.pyi", "forebay/peer/_placement.pyi"} <= packed
    assert {Path(name).suffix for name in packed} == {".proto", ".py", ".pyi", ".so", ".typed"}

    environment.install(wheel)
    assert use(environment, memory_path).is_relative_to(environment.path / "lib")


def test_every_package_is_listed(repository: Path) -> None:
    listed = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = [
        ".".join([package, *init.parent.relative_to(repository / folder).parts])
        for folder, package in PACKAGES.items()
        for init in (repository / folder).rglob("__init__.py")
    ]
    assert sorted(found) == listed
