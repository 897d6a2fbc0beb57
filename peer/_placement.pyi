"""Which members of a group a run of a file belongs to, best first: weighted rendezvous hashing.

Its invariant: what a member draws for a key depends on the key and on that member alone, so who comes or goes
moves only what it owns itself. It knows nothing of addresses, epochs or who answers; ``forebay.peer.ring``
does. Source: csrc/include/forebay/placement.h.
"""

from collections.abc import Sequence
from typing import Final, Generic, Self, TypeVar, final

_T = TypeVar("_T")

MEMBERS_MAX: Final[int]
WEIGHT_ONE: Final[int]
WEIGHT_MIN: Final[int]
WEIGHT_MAX: Final[int]

def key_of(dataset: str | bytes, path: str | bytes, run_number: int) -> int:
    """Return the key of a run: 64 bits of murmur3 over name, path and run number, the same on every host.

    A str counts as its UTF-8, with surrogates for what is none. Raises: TypeError; OverflowError (a run
    number that is negative or of more than 64 bits).
    """

@final
class Placement(Generic[_T]):
    """Members, and which of them a key belongs to. Never changes. Threads: any."""

    @property
    def members(self) -> tuple[_T, ...]:
        """What was given for the members."""

    def __new__(
        cls, members: tuple[_T, ...], ids: Sequence[bytes], weights: Sequence[int], zones: Sequence[int]
    ) -> Self:
        """Take for each member what stands for it in answers, its id, its weight and its zone's number.

        The caller has sorted them by id: 16 bytes, each once. Weights are WEIGHT_MIN to WEIGHT_MAX, and
        WEIGHT_ONE is a weight of 1; zones are below the number of members. Raises: ConfigError (more than
        MEMBERS_MAX); ValueError (anything else that is not so).
        """

    def rank(self, key: int, count: int, skipped: bytes | None = None) -> tuple[_T, ...]:
        """Return the first count members for a key, by rank, fewer if there are fewer.

        skipped has a byte for each member; those whose byte is not 0 are left out, and the others keep their
        order. Raises: ValueError (a negative count, marks for another number of members).
        """

    def owners(
        self,
        dataset: str | bytes,
        path: str | bytes,
        run_number: int,
        count: int,
        skipped: bytes | None = None,
    ) -> tuple[_T, ...]:
        """Return ``rank`` for the key of a run. Raises: as ``key_of`` and ``rank``."""
