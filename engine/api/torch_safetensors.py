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
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
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
if hasattr(torch, "float8_e8m0fnu"):
    # Since torch 2.7.
    _DTYPES["F8_E8M0"] = torch.float8_e8m0fnu


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
    data = memoryview(view)
    begin = _begin(data[:_LENGTH_BYTES], len(data), path)
    return _tensors(data, _places(data[_LENGTH_BYTES:begin], len(data), path))


def load_safetensors(cache: Cache, path: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, by name, in memory of their own, which they share.

    Any size; of what is no safetensors file only the header is read. Raises: as ``map_safetensors``; Stale
    (the object changed meanwhile).
    """
    with cache.open(path) as file:
        begin = _begin(file.read(_LENGTH_BYTES), file.size, path)
        places = _places(file.read(begin - _LENGTH_BYTES), file.size, path)
        buffer = torch.empty(file.size, dtype=torch.uint8).numpy().data
        file.seek(0)
        file.readinto(buffer)
    return _tensors(buffer, places)


def _tensors(data: memoryview, places: list[_Place]) -> dict[str, torch.Tensor]:
    """Make a tensor over each part of the file that the header names."""
    return {place.name: _tensor(data, place) for place in places}


def _tensor(data: memoryview, place: _Place) -> torch.Tensor:
    count = math.prod(place.shape)
    if not count:
        return torch.empty(place.shape, dtype=place.dtype)
    part = data[place.start : place.end]
    # Nothing says that the header's length keeps what follows aligned.
    if place.start % place.dtype.itemsize:
        part = memoryview(bytearray(part))
    return over(part, place.dtype).view(place.shape)


def _begin(length: bytes | memoryview, size: int, path: str) -> int:
    """Return where the tensors begin in a file of that size, which begins with that length.

    Raises: ValueError (the header does not fit, or is longer than the format has it).
    """
    begin = _LENGTH_BYTES + int.from_bytes(length, "little")
    if size < _LENGTH_BYTES or begin > size:
        raise _unsound(path, f"{size} bytes are too few for the header that they begin with")
    if begin > _LENGTH_BYTES + _HEADER_BYTES_MAX:
        raise _unsound(path, f"its header has more than {_HEADER_BYTES_MAX} bytes")
    return begin


def _places(header: bytes | memoryview, size: int, path: str) -> list[_Place]:
    """Read the header of a file of that size. Raises: ValueError (says what is wrong)."""
    try:
        return _described(json.loads(bytes(header)), _LENGTH_BYTES + len(header), size)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _unsound(path, error) from error


def _described(header: Any, begin: int, size: int) -> list[_Place]:
    """Check what the header says. Raises: ValueError, TypeError, KeyError (says what is wrong)."""
    if not isinstance(header, dict):
        raise TypeError(f"its header is a {type(header).__name__}")
    header.pop("__metadata__", None)
    places = [_place(name, described, begin) for name, described in header.items()]
    covered = begin
    for place in sorted(places, key=lambda place: (place.start, place.end)):
        if place.start != covered:
            raise ValueError(f"tensor {place.name!r} does not begin where the one before ends")
        covered = place.end
    if covered != size:
        raise ValueError(f"its tensors end at byte {covered} of {size}")
    return places


def _place(name: str, described: dict[str, Any], begin: int) -> _Place:
    """Check what the header says of a tensor. Raises: as ``_described``."""
    dtype = _DTYPES.get(described["dtype"])
    if dtype is None:
        raise ValueError(f"tensor {name!r} is of the unknown type {described['dtype']!r}")
    shape, (start, end) = described["shape"], described["data_offsets"]
    if any(type(figure) is not int or figure < 0 for figure in (*shape, start, end)):
        raise ValueError(f"tensor {name!r} has a shape or place that is none")
    if math.prod(shape) * dtype.itemsize != end - start:
        raise ValueError(f"tensor {name!r} of shape {shape} does not take {end - start} bytes")
    # torch counts so, also where one of the figures is zero.
    if math.prod(max(figure, 1) for figure in shape) * dtype.itemsize >= 1 << 63:
        raise ValueError(f"tensor {name!r} has a shape that is too large")
    return _Place(name, dtype, shape, begin + start, begin + end)


def _unsound(path: str, cause: object) -> ValueError:
    return ValueError(f"{path}: no sound safetensors file: {cause}")
