"""The layer that will let hosts share one cache: peers, placement and membership.

It implements the interface of ``forebay.remote`` (who owns this, fetch it), so the engine never imports it;
``forebay.open`` joins the two when a group is named. Without one, a process works with remote's null object.
"""

from __future__ import annotations

__all__: list[str] = []
