"""Builds forebay's extensions; everything declarative is in pyproject.toml.

The folders are not named as the packages are: engine/ is ``forebay``, peer/ and fuse/ are ``forebay.peer``
and ``forebay.fuse``. setuptools knows that from its package-dir table, but Cython, mypy and protoc look files
up by folder name; a Cython module whose own .pxd is not found is even compiled, silently, without its C
fields. So ``build/pkgview/forebay/`` is made, a tree of relative links with the right names, for Cython and
mypy to read.
"""

from __future__ import annotations

import os
import platform
import sys
from functools import partial
from glob import glob
from pathlib import Path
from typing import ClassVar

from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext

PACKAGE_VIEW = Path("build/pkgview")

# Elsewhere the package installs and imports, and its constructors say what is missing.
SUPPORTED = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")

# Warnings are not errors here: a warning that a newer compiler invents must not break an installation, and
# the C that Cython generates is not ours to mend. `make check` compiles csrc/ alone with -Wall -Wextra
# -Werror. Optimized at link time: the path of a hit goes through five files, and a look-up gains a tenth.
COMPILE_FLAGS = ["-O3", "-flto=auto", "-std=c11", "-D_GNU_SOURCE", "-fvisibility=hidden", "-pthread"]

# What recent look-ups, the placement of keys and copies are made of; all else of csrc/ is the store's.
LOOK_UP_SOURCES = ("csrc/src/entry.c", "csrc/src/recent.c")
PLACEMENT_SOURCES = ("csrc/src/placement.c",)
COPY_SOURCES = ("csrc/src/copies.c",)

SANITIZERS = ("address", "thread", "undefined")

CYTHON_DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "initializedcheck": False,
    "cdivision": True,
}


def make_package_view() -> Path:
    """Make or refresh the tree of links and return the folder to search in.

    Links are relative, so that the tree survives a move of the checkout; those of vanished entries are
    removed.
    """
    package = PACKAGE_VIEW / "forebay"
    package.mkdir(parents=True, exist_ok=True)
    entries = [entry for entry in Path("engine").iterdir() if entry.name != "__pycache__"]
    targets = {entry.name: entry for entry in [*entries, Path("peer"), Path("fuse")]}
    for link in package.iterdir():
        if link.name not in targets:
            link.unlink()
    for name, target in targets.items():
        link = package / name
        if not link.is_symlink():
            link.symlink_to(Path("../../..") / target)
    return PACKAGE_VIEW


def sanitizer() -> str | None:
    """Return the sanitizer that FOREBAY_SANITIZE names, or None."""
    name = os.environ.get("FOREBAY_SANITIZE")
    if not name:
        return None
    if name not in SANITIZERS:
        raise SystemExit(f"FOREBAY_SANITIZE={name!r}: expected one of {', '.join(SANITIZERS)}")
    return name


def extensions() -> list[Extension]:
    """Describe the extensions.

    A source with static state belongs to one of them alone. hash.c, which several have, has none; what
    crc32c.c remembers is the CPU's best implementation, which each finds out alike.
    """
    compile_flags, link_flags = list(COMPILE_FLAGS), ["-O3", "-flto=auto", "-pthread"]
    if name := sanitizer():
        compile_flags += ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={name}"]
        link_flags += [f"-fsanitize={name}"]
    describe = partial(
        Extension,
        depends=sorted(glob("csrc/**/*.h", recursive=True)),
        include_dirs=["csrc/include", "csrc/src"],
        extra_compile_args=compile_flags,
        extra_link_args=link_flags,
    )
    store_sources = sorted({*glob("csrc/src/*.c")} - {*LOOK_UP_SOURCES, *PLACEMENT_SOURCES, *COPY_SOURCES})
    crc32c_sources = sorted(glob("csrc/src/crc32c*.c"))
    return [
        describe("forebay.store._store", ["engine/store/_store.pyx", *store_sources]),
        describe("forebay.store._copies", ["engine/store/_copies.pyx", *COPY_SOURCES]),
        describe("forebay.meta._recent", ["engine/meta/_recent.pyx", "csrc/src/hash.c", *LOOK_UP_SOURCES]),
        describe("forebay.meta._rows", ["engine/meta/_rows.pyx"]),
        describe("forebay.cache._snapshot", ["engine/cache/_snapshot.pyx"]),
        describe("forebay.api.hadoop._chunks", ["engine/api/hadoop/_chunks.pyx", *crc32c_sources]),
        describe("forebay.peer._checksum", ["peer/_checksum.pyx", *crc32c_sources]),
        describe("forebay.peer._frames", ["peer/_frames.pyx", "csrc/src/hash.c"]),
        describe("forebay.peer._placement", ["peer/_placement.pyx", "csrc/src/hash.c", *PLACEMENT_SOURCES]),
        describe("forebay.ufs._s3_scan", ["engine/ufs/_s3_scan.pyx"]),
    ]


class BuildExtension(build_ext):
    """Runs Cython over the package view, then compiles.

    Cython runs when an extension is built, not when the command is set up: making an sdist or metadata sets
    it up too, and has to see the .pyx as the source.
    """

    def finalize_options(self) -> None:
        super().finalize_options()
        name = sanitizer()
        if name and self.inplace:
            # Folders of its own: objects of the two builds are never linked together or taken for each other.
            self.build_temp = f"{self.build_temp}-{name}"
            self.build_lib = f"{self.build_lib}-{name}"

    def build_extension(self, ext: Extension) -> None:
        from Cython.Build import cythonize

        view = make_package_view()
        (generated,) = cythonize(
            [ext],
            build_dir="build/cython",
            include_path=[str(view)],
            compiler_directives=CYTHON_DIRECTIVES,
            force=self.force,
            quiet=self.verbose == 0,
        )
        ext.sources = generated.sources
        super().build_extension(ext)

    def copy_extensions_to_source(self) -> None:
        self.force = True  # what lies in place may be newer and yet of the other build, plain or sanitized
        super().copy_extensions_to_source()


class MakePackageView(Command):
    """The package view alone, for mypy and stubtest."""

    description = "make build/pkgview, where folders are named as packages are"
    user_options: ClassVar[list[tuple[str, str | None, str]]] = []

    def initialize_options(self) -> None:
        """Nothing to set: the command has no options."""

    def finalize_options(self) -> None:
        """Nothing to check: the command has no options."""

    def run(self) -> None:
        make_package_view()


setup(
    ext_modules=extensions() if SUPPORTED else [],
    cmdclass={"build_ext": BuildExtension, "pkgview": MakePackageView},
)
