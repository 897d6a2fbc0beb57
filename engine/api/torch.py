"""torch datasets over a cache: by number, one after another, tar shards, safetensors files.

This module is the list of public names. Nothing is cached here: samples come from the cache that a dataset
was given, and every process opens that for itself.
"""

from __future__ import annotations

try:
    import torch
except ImportError as error:
    raise ImportError("forebay.api.torch needs torch: pip install 'forebay[torch]'") from error

from forebay.api.torch_iterable import IterableDataset
from forebay.api.torch_map import MapDataset, loader
from forebay.api.torch_order import OrderedBatches
from forebay.api.torch_safetensors import load_safetensors, map_safetensors
from forebay.api.torch_tar import TarDataset

__all__ = [
    "IterableDataset",
    "MapDataset",
    "OrderedBatches",
    "TarDataset",
    "load_safetensors",
    "loader",
    "map_safetensors",
]

del torch
