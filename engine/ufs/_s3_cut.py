"""Where to cut a range of keys, judged by the pages that have come: keys as places on a ruler.

A text is read as a number whose digits are its characters, each ranked among those that keys have been seen
to have at that place. How far apart two keys are is then about how many keys lie between them.
"""

from __future__ import annotations

import string
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

# Characters behind the first that differs within a page: a finer ruler would measure nothing more.
_DIGITS: Final = 8
# What is left of a range is cut only if it is this long: below, the cutting would cost as much as it saves.
_PAGES_LEFT_MIN: Final = 8


class Ruler:
    """What characters keys have been seen to have at which place; learns, and measures. For one thread."""

    def __init__(self) -> None:
        """Know no key yet."""
        self._seen: Final[list[set[str]]] = []

    def learn(self, key: str) -> None:
        """Take note of a key."""
        while len(self._seen) < len(key):
            self._seen.append(set())
        for seen, character in zip(self._seen, key, strict=False):
            seen.add(character)

    def cut(self, before: str, last: str, upto: str | None, pages_ahead: int) -> str | None:
        """Return where to cut what is left behind last, None if it is too short or no place is in sight.

        before lies a page before last, the caller guarantees, and both were learnt. With upto, the end of the
        range, the middle; else the place that lies pages_ahead pages on. What is returned lies between last
        and upto, both excluded, in the order of code points, which is that of S3's keys.
        """
        same = next((at for at, (a, b) in enumerate(zip(before, last, strict=False)) if a != b), 0)
        alphabets = [_likely(seen) for seen in self._seen[: same + _DIGITS]]
        start, end = _number(before, alphabets), _number(last, alphabets)
        page = max(end - start, 1)
        if upto is None:
            place = end + pages_ahead * page
        else:
            left = _number(upto, alphabets) - end
            if left < _PAGES_LEFT_MIN * page:
                return None
            place = end + left // 2
        found = _text(place, alphabets)
        return found if last < found and (upto is None or found < upto) else None


def _likely(seen: set[str]) -> list[str]:
    """Return in order the characters to reckon with where these were seen: numbers go through all digits."""
    return sorted(seen.union(string.digits)) if seen.intersection(string.digits) else sorted(seen)


def _number(text: str, alphabets: Sequence[Sequence[str]]) -> int:
    number = 0
    for index, alphabet in enumerate(alphabets):
        # Zero stands for the end of a text, or something before all that is likely.
        digit = bisect_left(alphabet, text[index]) + 1 if index < len(text) else 0
        number = number * (len(alphabet) + 1) + min(digit, len(alphabet))
    return number


def _text(number: int, alphabets: Sequence[Sequence[str]]) -> str:
    """Return the text that has this number, "" if it is behind all that are likely."""
    characters = []
    for alphabet in reversed(alphabets):
        number, digit = divmod(number, len(alphabet) + 1)
        characters.append(alphabet[digit - 1] if digit else "")
    if number:
        return ""
    characters.reverse()
    end = characters.index("") if "" in characters else len(characters)
    return "".join(characters[:end])
