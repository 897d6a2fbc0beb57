"""What a proxy does wrong on purpose, and to which responses."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, get_args

FaultKind = Literal["delay", "reset", "cut", "truncate", "corrupt", "status"]

_KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)


@dataclass(frozen=True)
class Fault:
    """One rule: a kind of fault, where in a response it strikes, and which responses it strikes.

    kind is ``delay`` (wait delay_s, then go on), ``reset`` (RST to both sides), ``cut`` (nothing passes any
    more, the connection stays open), ``truncate`` (an orderly end, too early), ``corrupt`` (one bit
    flipped) or ``status`` (the request is not passed on; an empty answer with that status comes back). It
    strikes when after_bytes of the response's body have passed, with None before its very first byte;
    ``status`` at once. It strikes responses to requests whose first line contains match, the first
    ``times`` of them, all with None. In a stream that is no HTTP a response is what the target sends after
    the client last sent something.
    Raises: ValueError (unknown kind, negative figure, status outside 100 to 599).
    """

    kind: FaultKind
    after_bytes: int | None = None
    delay_s: float = 0.0
    status: int = 503
    match: str = ""
    times: int | None = None

    def __post_init__(self) -> None:
        """Refuse what could never strike or would not be understood."""
        if self.kind not in _KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; kinds are {', '.join(_KINDS)}")
        if (self.after_bytes or 0) < 0 or self.delay_s < 0 or (self.times is not None and self.times < 1):
            raise ValueError(f"a fault's figures are not negative, and it strikes at least once: {self}")
        if not 100 <= self.status <= 599:
            raise ValueError(f"{self.status} is no HTTP status")

    def to_json(self) -> dict[str, Any]:
        """Return the rule as what ``Fault(**...)`` takes."""
        return asdict(self)


class FaultPlan:
    """The rules in force, first match first, and how often each may still strike. Threads: any."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        """Begin with these rules."""
        self._lock: Final = threading.Lock()
        self._rules: list[tuple[Fault, int | None]] = []
        self.replace(faults)

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put these rules in the place of all earlier ones; responses already struck stay so."""
        rules = [(fault, fault.times) for fault in faults]
        with self._lock:
            self._rules = rules

    def draw(self, first_line: str) -> Fault | None:
        """Return the fault for the response to this request, counting it as struck, or None."""
        with self._lock:
            for position, (fault, left) in enumerate(self._rules):
                if left != 0 and fault.match in first_line:
                    self._rules[position] = (fault, None if left is None else left - 1)
                    return fault
        return None
