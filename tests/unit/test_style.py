"""The part of the style that can be counted. What is over a limit is split; the one exception has its own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
# One extension holds all of csrc, and the classes over it need its C functions: they cannot be parted.
FILE_LINES_MAX_OF = {"engine/store/_store.pyx": 856}

FOLDERS = ("engine", "peer", "fuse", "csrc", "tests", "perf")
# What a compiler writes is in nobody's style.
MADE = re.compile(r"_pb2(_grpc)?\.pyi?$")
SUFFIXES = (".py", ".pyi", ".pyx", ".pxd", ".c", ".h")

# Written in halves, so that this file does not find itself.
LEFTOVERS = re.compile(
    "|".join(
        [
            r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b",
            r"NotImplemented" + r"Error",
            r"\bbreak" + r"point\(|\bpdb\." + r"set_trace",
            r"pytest\.(importor)?" + r"skip|mark\.(skip" + r"|xfail)|pytest\.x" + r"fail",
        ]
    )
)
SWALLOWED = re.compile(
    r"except(?:[ \t]+\(?(?:Base)?Exception\)?(?:[ \t]+as[ \t]+\w+)?)?[ \t]*:\s*(?:pass|\.\.\.)[ \t]*(?:#.*)?$"
    r"|suppress\((?:Base)?Exception\)",
    re.MULTILINE,
)
CYTHON_FUNCTION = re.compile(
    r"^(?P<indent>[ \t]*)(?:async[ \t]+def|def|cpdef|cdef)\b[^=:#]*?(?P<name>\w+)[ \t]*\("
)


def sources(root: Path) -> list[Path]:
    """List the files that the style holds for."""
    return [
        path
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*"))
        if path.suffix in SUFFIXES and not MADE.search(path.name)
    ]


def python_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield each function of Python source with its length in lines, decorators apart."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            yield node.name, node.end_lineno - node.lineno + 1


def cython_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield each function of Cython source with its length: it ends where the indentation comes back."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        match = CYTHON_FUNCTION.match(line)
        if match is None:
            continue
        end = start
        for index in range(start + 1, len(lines)):
            rest = lines[index].lstrip()
            if rest and not rest.startswith((")", "#")) and indent_of(lines[index]) <= len(match["indent"]):
                break
            if rest:
                end = index
        yield match["name"], end - start + 1


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def c_functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield each function of C source with its length: as clang-format writes it, it ends in a bare brace."""
    head, start = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if line == "}":
            yield head, number - start + 1
        elif line and line[0] not in " \t{}#/*":
            head, start = line, number


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the functions of a file by its language; headers and declarations have short ones or none."""
    text = path.read_text()
    if path.suffix in (".c", ".h"):
        return c_functions(text)
    return cython_functions(text) if path.suffix in (".pyx", ".pxd") else python_functions(text)


def style_violations(root: Path) -> list[str]:
    """List what is too long, left over or swallowed."""
    found = []
    for path in sources(root):
        name, text = path.relative_to(root), path.read_text()
        line_count = text.count("\n")
        lines_max = FILE_LINES_MAX_OF.get(str(name), FILE_LINES_MAX)
        if line_count > lines_max:
            found.append(f"{name}: {line_count} lines, at most {lines_max}")
        found += [
            f"{name}: {function} has {length} lines, at most {FUNCTION_LINES_MAX}"
            for function, length in function_lengths(path)
            if length > FUNCTION_LINES_MAX
        ]
        for pattern, reason in ((LEFTOVERS, "left over"), (SWALLOWED, "error swallowed")):
            for match in pattern.finditer(text):
                found.append(f"{name}:{text.count(chr(10), 0, match.start()) + 1}: {reason}: {match[0]!r}")
    return found


def test_the_style_is_kept(repository: Path) -> None:
    assert style_violations(repository) == []


def test_every_language_is_read(repository: Path) -> None:
    assert {path.suffix for path in sources(repository)} == set(SUFFIXES)


LONG_PYTHON = "def f():\n" + "    a = 1\n" * FUNCTION_LINES_MAX
LONG_METHOD = (
    "cdef class A:\n    cdef int f(self,\n            int n\n    ) except -1:\n"
    + "        a = 1\n" * FUNCTION_LINES_MAX
)
LONG_C = "static int f(int a,\n             int b)\n{\n" + "    a = 1;\n" * (FUNCTION_LINES_MAX - 3) + "}\n"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("engine/a.py", LONG_PYTHON, "f has 71 lines"),
        ("engine/a.pyx", LONG_PYTHON, "f has 71 lines"),
        ("engine/a.pyx", LONG_METHOD + "\n    cdef int g(self):\n        pass\n", "f has 73 lines"),
        ("csrc/a.c", LONG_C, "static int f(int a, has 71 lines"),
        ("perf/a.py", "a = 1\n" * 501, "501 lines"),
        ("engine/a.py", "# TO" + "DO: later", "left over"),
        ("csrc/a.h", "/* FIX" + "ME */", "left over"),
        ("tests/a.py", "@pytest.mark.s" + "kipif(True)\ndef f(): a()", "left over"),
        ("tests/a.py", "@pytest.mark.x" + "fail\ndef f(): a()", "left over"),
        ("engine/a.py", "try:\n    f()\nexcept:\n" + "    pass", "error swallowed"),
        ("engine/a.pyx", "try:\n    f()\nexcept Exception as e:\n    ...  # fine", "error swallowed"),
        ("peer/a.py", "with suppress(" + "Exception): f()", "error swallowed"),
    ],
)
def test_a_planted_violation_is_found(tmp_path: Path, name: str, text: str, reason: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    assert reason in "\n".join(style_violations(tmp_path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("engine/a.py", LONG_PYTHON.replace("    a = 1\n", "", 1)),
        ("csrc/a.c", LONG_C.replace("    a = 1;\n", "", 1) + "\nstruct a {\n" + "    int a;\n" * 80 + "};\n"),
        ("engine/a.pyx", "cdef extern from 'a.h':\n    int f(int a)\n" + "    int b\n" * 80),
        ("engine/a.py", "try:\n    f()\nexcept FileNotFoundError:\n    pass"),
    ],
)
def test_what_is_within_the_limits_is_let_pass(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text(text)
    assert style_violations(tmp_path) == []
