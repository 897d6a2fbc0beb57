"""All keys under a prefix, listed by several requests at a time.

A listing is one chain of pages, each of which must have come before the next can be asked for. So the keys
are cut into ranges, and each range is a chain of its own: whoever is in the middle of a range and sees idle
workers cuts off the later part of what is left to it. Where to cut is a guess. A wrong one costs a request,
that for a range that turns out to be empty; what is listed does not depend on it, for a range takes from its
pages only the keys within its bounds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from forebay.errors import not_found, under_storage_error
from forebay.ufs._s3_cut import Ruler
from forebay.ufs._s3_listing import Listing
from forebay.ufs._s3_names import Key
from forebay.ufs._s3_scan import described
from forebay.ufs._walk import visit_in_parallel
from forebay.ufs.base import ObjectInfo

_THREADS_A_REQUEST: Final = 1.5
# Keys of a page that are looked at for what keys look like.
_SAMPLES: Final = 16


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys behind after, up to and with upto; without upto, to the end of the prefix."""

    after: str = ""
    upto: str | None = None


_Step = tuple[Sequence[ObjectInfo], Sequence[KeyRange]]


def walk_keys(
    listing: Listing, parent: str, workers: int, count_hidden: Callable[[int], None]
) -> Iterator[Sequence[ObjectInfo]]:
    """Yield what lies under the listing's prefix, as paths below parent.

    workers is how many requests the listing has slots for. Raises, while it is iterated: NotFound (nothing),
    and as ``Listing.pages``.
    """
    # More threads than requests: while some read an answer, the others keep all requests under way.
    threads = int(workers * _THREADS_A_REQUEST) if workers > 1 else 1
    walk = _Walk(listing, parent, threads, count_hidden)
    yield from visit_in_parallel([KeyRange()], walk.visit, threads)
    if listing.prefix and not walk.found:
        raise not_found(listing.uri, "nothing lies under this name")


class _Walk:
    """What the workers of one walk share."""

    def __init__(
        self, listing: Listing, parent: str, workers: int, count_hidden: Callable[[int], None]
    ) -> None:
        self._listing = listing
        self._parent = parent
        self._ranges_max = workers if workers > 1 else 0
        self._count_hidden = count_hidden
        self._lock = threading.Lock()
        self._ranges = 1
        self._cut = False
        self._in_order = True
        self._ruler = Ruler()
        self._pages_ahead = 1
        self.found = False

    def visit(self, keys: KeyRange) -> Iterator[_Step]:
        """List one range, giving away parts of it while others are idle."""
        after, upto = keys.after, keys.upto
        previous: str | None = None
        try:
            for page in self._listing.pages(after):
                yield self._shown(self._within(page.keys, after, upto)), ()
                if not page.keys:
                    continue
                self.found = True
                last = page.keys[-1].key
                if upto is not None and last >= upto:
                    return
                after = max(after, last)
                # One page may lie within one directory of many, and says little of a range's length; and what
                # ends on the second takes no longer in one piece.
                if page.truncated and previous is not None:
                    cuts = self._cuts(previous, after, upto)
                    ends = [*cuts[1:], upto]
                    upto = cuts[0] if cuts else upto
                    yield (), [KeyRange(*each) for each in zip(cuts, ends, strict=False)]
                previous = after
        finally:
            with self._lock:
                self._ranges -= 1

    def _within(self, keys: list[Key], after: str, upto: str | None) -> list[Key]:
        """Return those keys of a page that lie in the range; learn what keys look like."""
        if not keys or not self._in_order:
            return keys
        if not all(low[0] < high[0] for low, high in pairwise(keys)):
            self._give_up_order()
            return keys
        prefix_length = len(self._listing.prefix)
        with self._lock:
            for sample in (*keys[:: max(1, len(keys) // _SAMPLES)], keys[-1]):
                self._ruler.learn(sample.key[prefix_length:])
        if keys[0].key > after and (upto is None or keys[-1].key <= upto):
            return keys
        if keys[0].key <= after:
            # Not every server starts where it is asked to, and one that does not lists all for every range.
            self._ranges_max = 0
        return [each for each in keys if each.key > after and (upto is None or each.key <= upto)]

    def _give_up_order(self) -> None:
        """Go on without cutting, as one chain, for a server that sorts otherwise (S3's directory buckets)."""
        with self._lock:
            if self._cut:
                raise under_storage_error(self._listing.uri, "the listing is out of order")
            self._in_order = False

    def _cuts(self, before: str, after: str, upto: str | None) -> list[str]:
        """Return where to cut what is left of a range, in order; nothing if it is to stay whole.

        What is left begins behind after, a page further on than before. The first cuts follow the bucket's
        directories, if it has some, later ones the length of that page.
        """
        with self._lock:
            if not self._in_order or self._ranges >= self._ranges_max:
                return []
            first, self._cut = not self._cut, True
            room = self._ranges_max - self._ranges
        cuts: list[str] = []
        if first:
            names = [name for name in sorted(self._listing.common_prefixes()) if name > after]
            cuts = names[:: max(1, -(-len(names) // room))]
        if not cuts:
            length = len(self._listing.prefix)
            end = None if upto is None else upto[length:]
            with self._lock:
                place = self._ruler.cut(before[length:], after[length:], end, self._pages_ahead)
            cuts = [] if place is None else [self._listing.prefix + place]
        with self._lock:
            self._ranges += len(cuts)
            if cuts and upto is None:
                # There is one range without an end. It is cut further and further on, until a cut lies behind
                # the last key and becomes that end.
                self._pages_ahead *= 2
        return cuts

    def _shown(self, keys: Sequence[Key]) -> Sequence[ObjectInfo]:
        shown, hidden = described(keys, len(self._listing.prefix), self._parent)
        if hidden:
            self._count_hidden(hidden)
        return shown
