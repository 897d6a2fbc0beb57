"""What a cache of another size, or with another retention, would have made of what was recorded.

``what_if(cache.trace("epoch-1"))`` plays a trace against one tier of each size, as the store would fill it
and evict from it: in blocks, records, segments and watermarks. It is no store: it has no byte, and leaves out
what the store does by the clock (time to live, giving way to another dataset, promotion between tiers).
"""

from __future__ import annotations

from forebay.whatif.play import Estimate, WhatIf, what_if
from forebay.whatif.plot import plot

__all__ = ["Estimate", "WhatIf", "plot", "what_if"]
