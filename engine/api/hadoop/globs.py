"""Patterns of paths as Hadoop's globStatus takes them.

``*`` and ``?`` do not cross a slash; ``[abc]``, ``[a-z]`` and ``[^a]`` stand for one character; ``{ab,c*}``
for one of several, which may hold slashes and more braces; a backslash takes the meaning of what follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_PATTERNS_MAX: Final = 1_000
_MAGIC: Final = re.compile(r"[*?\[\]{}\\]")


def expanded(pattern: str) -> list[str]:
    """Return the patterns that the braces of one with slashes in them stand for.

    Raises: ValueError (a brace without its other; more than 1,000).
    """
    found: list[str] = []
    waiting = [pattern]
    while waiting:
        each = waiting.pop()
        first = _braces_with_slash(each)
        if first is None:
            found.append(each)
            continue
        begin, end = first
        waiting += [each[:begin] + one + each[end + 1 :] for one in reversed(_choices(each[begin + 1 : end]))]
        if len(waiting) + len(found) > _PATTERNS_MAX:
            raise ValueError(f"glob {pattern!r} stands for more than {_PATTERNS_MAX} patterns")
    return found


def is_plain(part: str) -> bool:
    """Say whether a part of a pattern stands for one name."""
    return _MAGIC.search(part) is None


def compiled(part: str) -> re.Pattern[str]:
    """Compile one part of a pattern, which holds no slash. Raises: ValueError (malformed)."""
    try:
        return re.compile("".join(_translated(part)), re.DOTALL)
    except re.error as error:
        raise ValueError(f"glob {part!r}: {error}") from None


def _translated(part: str) -> Iterator[str]:
    """Yield the pieces of the regular expression for a part. Raises: ValueError."""
    depth, at = 0, 0
    while at < len(part):
        character = part[at]
        at += 1
        if character == "\\":
            if at == len(part):
                raise ValueError(f"glob {part!r} ends in a backslash")
            yield re.escape(part[at])
            at += 1
        elif character == "*":
            yield ".*"
        elif character == "?":
            yield "."
        elif character == "[":
            end = _set_end(part, at)
            yield _one_of(part[at:end])
            at = end + 1
        elif character == "{":
            depth += 1
            yield "(?:"
        elif character == "}" and depth:
            depth -= 1
            yield ")"
        elif character == "," and depth:
            yield "|"
        else:
            yield re.escape(character)
    if depth:
        raise ValueError(f"glob {part!r} has a brace that nothing closes")


def _set_end(part: str, begin: int) -> int:
    """Return where the bracket is that closes the set that begins there. Raises: ValueError."""
    # The first of a set stands for itself, even if it is a bracket.
    at = begin + (part[begin : begin + 1] in ("^", "!"))
    first = at
    while at < len(part):
        if part[at] == "\\":
            at += 1
        elif part[at] == "]" and at > first:
            return at
        at += 1
    raise ValueError(f"glob {part!r} has a bracket that nothing closes")


def _one_of(characters: str) -> str:
    negation = "^" if characters[:1] in ("^", "!") else ""
    pieces = []
    rest = iter(characters[len(negation) :])
    for character in rest:
        if character == "\\":
            pieces.append(re.escape(next(rest)))
        else:
            pieces.append(character if character == "-" else re.escape(character))
    return f"[{negation}{''.join(pieces)}]"


def _braces_with_slash(pattern: str) -> tuple[int, int] | None:
    """Return where the first pair of braces with a slash in it begins and ends. Raises: ValueError."""
    begins: list[int] = []
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 1
        elif pattern[at] == "{":
            begins.append(at)
        elif pattern[at] == "}" and begins:
            begin = begins.pop()
            if "/" in pattern[begin:at]:
                found.append((begin, at))
        at += 1
    if begins:
        raise ValueError(f"glob {pattern!r} has a brace that nothing closes")
    return min(found, default=None)


def _choices(text: str) -> list[str]:
    """Split what stands between braces at the commas of its own level."""
    choices, depth, begin, at = [], 0, 0, 0
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character == "{":
            depth += 1
        elif character == "}":
            depth -= 1
        elif character == "," and depth == 0:
            choices.append(text[begin:at])
            begin = at + 1
        at += 1
    return [*choices, text[begin:]]
