"""What frames take for each block of a batch: its name in a READ frame, and its identity.

The body of a READ frame has for each block id u32, flags u8 (1: only what is cached), a byte of nothing,
lengths u16 of dataset, path and version, number u64, length u32; then the three names, UTF-8 with surrogates
for what is none.
"""

from collections.abc import Sequence
from typing import TypeVar

from typing_extensions import Buffer

from forebay.remote import BlockRequest

_T = TypeVar("_T", bound=tuple[int, bool, str, str, str, int, int])

def identity_of(dataset: str, path: str, version: str = "", number: int = 0) -> int:
    """Return 64 bits of a hash that tell a block, or with the defaults an object, from all others.

    They are the first word of murmur3 over the names and the number in decimal, parted by NUL: the same on
    every host. Raises: OverflowError (a number that is negative or of more than 64 bits).
    """

def pack_blocks(requests: Sequence[BlockRequest], first_id: int, only_cached: bool) -> bytes:
    """Return the body that names these blocks; their ids count on from first_id.

    Raises: ValueError (a name too long); OverflowError (a figure that fits into no frame).
    """

def parse_blocks(body: Buffer, make: type[_T], count_max: int, length_max: int) -> list[_T]:
    """Return what a body names: id, only_cached, dataset, path, version, number and length of each block.

    body is C-contiguous, and nobody writes to it meanwhile. Raises: ValueError (it says what is wrong: no
    such body, more than count_max, longer than length_max).
    """
