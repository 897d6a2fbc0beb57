"""The ring: who owns what, as one view of the group has it.

Its invariant: it never changes, and any two hosts whose rings have the same digest name the same owners, in
the same order. Members that are down still own their keys, so that a restart moves nothing: who reads skips
them. Members that leave own nothing any more. Who is in the view at all is ``forebay.peer.membership``'s.

The unit is a run, 64 MiB of a file from a multiple of that on, so most files have one owner.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import Final

from forebay.peer._placement import Placement
from forebay.peer.member import Member, MemberState, View
from forebay.remote import PLACEMENT_BYTES

RUN_BYTES: Final = PLACEMENT_BYTES
# Part of the handshake: another way to place keys has another name.
METHOD: Final = "rendezvous-murmur3-1"


class Ring:
    """The owners of keys by one view. Threads: any."""

    def __init__(self, view: View) -> None:
        """Place by the members of a view."""
        self.view: Final = view
        self.down: Final = frozenset(m.id for m in view.members if m.state is MemberState.DOWN)
        self._by_id: Final = {member.id: member for member in view.members}
        placed = [member for member in view.members if member.state is not MemberState.LEAVING]
        self._placed: Final = _place(placed)
        # Former owners: those that leave still have what they owned, and zones had no part in who owned what.
        is_plain = len(placed) == len(view.members) and len({member.zone for member in placed}) <= 1
        self._former: Final = self._placed if is_plain else _place(view.members, is_zoned=False)
        self._marks: tuple[frozenset[str], bytes] | None = None

    @property
    def epoch(self) -> int:
        """The number of the view."""
        return self.view.epoch

    @property
    def members(self) -> tuple[Member, ...]:
        """Those that keys are placed on, sorted by id: all of the view but those that leave."""
        return self._placed.members

    def __len__(self) -> int:
        """Return how many members keys are placed on."""
        return len(self._placed.members)

    def get(self, member_id: str) -> Member | None:
        """Return a member of the view, one that leaves included, or None."""
        return self._by_id.get(member_id)

    def owners(
        self, dataset: str, path: str | bytes, offset: int, count: int = 1, skip: Collection[str] = ()
    ) -> tuple[Member, ...]:
        """Return the members for the run at an offset of a file, best first, fewer where there are fewer.

        The first is the owner, the first R hold the copies. Zones are kept apart while there are zones left.
        Those whose ids are in skip (``down``, say) are left out, and the others keep their order: who stands
        in for a member then is who holds a copy already, where there are copies. Takes 0.5 µs at 100 members.
        """
        return self._placed.owners(dataset, path, offset // RUN_BYTES, count, self._skipped(skip))

    def rank_of(
        self, member_id: str, dataset: str, path: str | bytes, offset: int, within: int | None = None
    ) -> int | None:
        """Return a member's rank for a run, or None if it is not among the first `within` (None: all)."""
        count = len(self) if within is None else within
        for rank, member in enumerate(self.owners(dataset, path, offset, count)):
            if member.id == member_id:
                return rank
        return None

    def former_owners(
        self, member_id: str, dataset: str, path: str | bytes, offset: int
    ) -> tuple[Member, ...]:
        """Return who may have a run that a member owns only since the ring changed, in the order to ask in.

        Who would own it without member_id, be it one that leaves; and rank 1, who stood in for an owner that
        is gone. They are one and the same, unless zones part them or somebody leaves.
        """
        run, without = offset // RUN_BYTES, frozenset((member_id,))
        found = (
            *self._former.owners(dataset, path, run, 1, _marks(self._former, without)),
            *self._placed.owners(dataset, path, run, 1, _marks(self._placed, without)),
        )
        return tuple(dict.fromkeys(found))

    def digest(self) -> str:
        """Return what two rings have in common when they place every key alike: ids, weights and zones."""
        state = hashlib.blake2b(METHOD.encode(), digest_size=16)
        for member in self.members:
            state.update(f"\n{member.id} {member.weight_units} {member.zone}".encode())
        return state.hexdigest()

    def _skipped(self, skip: Collection[str]) -> bytes | None:
        """Return the marks of those who are skipped; it is the same few for many look-ups."""
        if not skip:
            return None
        ids = skip if isinstance(skip, frozenset) else frozenset(skip)
        kept = self._marks  # one reference, so that threads never see half of it
        if kept is None or kept[0] != ids:
            kept = self._marks = (ids, _marks(self._placed, ids))
        return kept[1]


def _place(members: Iterable[Member], *, is_zoned: bool = True) -> Placement[Member]:
    """Place by members, which are sorted by id."""
    placed = tuple(members)
    zones: dict[str, int] = {}
    numbers = [zones.setdefault(member.zone if is_zoned else "", len(zones)) for member in placed]
    ids = [bytes.fromhex(member.id.replace("-", "")) for member in placed]
    return Placement(placed, ids, [member.weight_units for member in placed], numbers)


def _marks(placement: Placement[Member], ids: Collection[str]) -> bytes:
    return bytes(member.id in ids for member in placement.members)
