"""The figures of a what-if as a picture."""

from __future__ import annotations

import os

from forebay.config import GIB
from forebay.errors import ConfigError
from forebay.whatif.play import WhatIf


def plot(found: WhatIf, path: str | os.PathLike[str]) -> None:
    """Draw hit ratio against size, a line for each retention, into a file whose name says its format.

    Raises: ConfigError (matplotlib is not installed; it does not know the format); OSError.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"plots need matplotlib: pip install 'forebay[plot]' ({error})") from error
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for retention in dict.fromkeys(estimate.retention for estimate in found.estimates):
        line = found.of(retention)
        sizes = [estimate.size_bytes / GIB for estimate in line]
        axes.plot(sizes, [estimate.hit_ratio for estimate in line], "o-", label=retention)
    axes.axvline(found.distinct_bytes / GIB, color="black", linestyle=":", label="all that is read")
    axes.set_xlabel("size of the cache (GiB)")
    axes.set_ylabel("hit ratio")
    axes.set_ylim(0, 1)
    axes.set_title(f"trace {found.trace}", fontsize="medium")
    axes.legend(fontsize="small")
    try:
        figure.savefig(path, dpi=120)
    except ValueError as error:
        raise ConfigError(f"{os.fspath(path)}: {error}") from error
