"""Objects of a listing: read from its document as nearly all servers write it, and described as paths."""

from collections.abc import Callable, Iterable

from forebay.ufs._s3_names import Key
from forebay.ufs.base import ObjectInfo

def scan(document: bytes, seconds_of: Callable[[str], int]) -> tuple[list[Key], bytes] | None:
    """Return the objects of a listing, and the document without them; None: a parser has to read it.

    seconds_of reads a time.
    """

def described(keys: Iterable[Key], prefix_length: int, parent: str) -> tuple[list[ObjectInfo], int]:
    """Return objects by their paths below parent, and the number of those that no path can name.

    Their keys have the prefix of that length. Empty ones that mark directories are not counted.
    """
