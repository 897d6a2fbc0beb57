"""safetensors files as tensors: over the cached bytes themselves, or in memory of their own.

A file that lies whole in a memory tier is one contiguous view, and each tensor a window of it. The format is
eight bytes of length, a JSON header with the place of each tensor, and their bytes without gaps.
Source: https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch

from forebay.api.torch_samples import over

if TYPE_CHECKING:
    from forebay.cache import Cache

_LENGTH_BYTES: Final = 8
# The format's own bound.
_HEADER_BYTES_MAX: Final = 100_000_000
_DTYPES: Final = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class _Place(NamedTuple):
    """Where in the file a tensor lies."""

    name: str
    dtype: torch.dtype
    shape: list[int]
    start: int
    end: int


def map_safetensors(cache: Cache, path: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file over its cached bytes, by name; they must not be written to.

    An operation in place on one ends the process: ``clone`` what is to change. No byte is copied where the
    file lies whole in a memory tier, to which the first call brings it if there is a place; else, the file is
    read once into memory that the tensors share. What is mapped stays in the cache as long as a tensor lives.
    Raises: ValueError (no safetensors file; says what is wrong); as `Cache.read`.
    """
    # An object that is known is brought in one piece; another would be asked for with its first bytes.
    cache.stat(path)
    try:
        view = cache.read(path)
    except ValueError:
        # Too long to be gathered; if it is anything else, this says so as well.
        return load_safetensors(cache, path)
    return _tensors(memoryview(view), path)


def load_safetensors(cache: Cache, path: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, by name, in memory of their own, which they share.

    Any size. Raises: as ``map_safetensors``; Stale (the object changed meanwhile).
    """
    with cache.open(path) as file:
        data = torch.empty(file.size, dtype=torch.uint8)
        buffer = data.numpy().data
        filled = 0
        while filled < len(buffer):
            filled += file.readinto(buffer[filled:])
    return _tensors(buffer, path)


def _tensors(data: memoryview, path: str) -> dict[str, torch.Tensor]:
    """Make a tensor over each part of the file that the header names."""
    try:
        return {place.name: _tensor(data, place) for place in _places(data)}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: no sound safetensors file: {error}") from error


def _tensor(data: memoryview, place: _Place) -> torch.Tensor:
    count = math.prod(place.shape)
    if not count:
        return torch.empty(place.shape, dtype=place.dtype)
    part = data[place.start : place.end]
    # Nothing says that the header's length keeps what follows aligned.
    if place.start % place.dtype.itemsize:
        part = memoryview(bytearray(part))
    return over(part, place.dtype).view(place.shape)


def _places(data: memoryview) -> list[_Place]:
    """Read the header. Raises: ValueError, TypeError, KeyError (says what is wrong)."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if len(data) < _LENGTH_BYTES or length > _HEADER_BYTES_MAX or begin > len(data):
        raise ValueError(f"{len(data)} bytes are too few for the header that they begin with")
    header = json.loads(bytes(data[_LENGTH_BYTES:begin]))
    if not isinstance(header, dict):
        raise TypeError(f"its header is a {type(header).__name__}")
    header.pop("__metadata__", None)
    places = [_place(name, described, begin) for name, described in header.items()]
    covered = begin
    for place in sorted(places, key=lambda place: (place.start, place.end)):
        if place.start != covered:
            raise ValueError(f"tensor {place.name!r} does not begin where the one before ends")
        covered = place.end
    if covered != len(data):
        raise ValueError(f"its tensors end at byte {covered} of {len(data)}")
    return places


def _place(name: str, described: dict[str, Any], begin: int) -> _Place:
    """Check what the header says of a tensor. Raises: as ``_places``."""
    dtype = _DTYPES.get(described["dtype"])
    if dtype is None:
        raise ValueError(f"tensor {name!r} is of the unknown type {described['dtype']!r}")
    shape, (start, end) = described["shape"], described["data_offsets"]
    if any(type(figure) is not int or figure < 0 for figure in (*shape, start, end)):
        raise ValueError(f"tensor {name!r} has a shape or place that is none")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f"tensor {name!r} of shape {shape} does not take {end - start} bytes")
    return _Place(name, dtype, shape, begin + start, begin + end)
