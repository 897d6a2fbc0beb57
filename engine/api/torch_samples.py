"""Samples: what becomes of the bytes of an object on their way into a training loop.

Bytes are copied into memory of the sample's own unless it was asked for otherwise: a tensor over a read-only
map takes the process down with the first operation in place.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

import torch

from forebay.api.torch_paths import PackedPaths, paths_below, paths_listed
from forebay.config import MIB, nearest

if TYPE_CHECKING:
    from forebay.cache import Cache, View

Decode = Callable[[str, Any], Any]

# Made and dropped, once a process: whether glibc gives freed memory back depends on what large memory was
# freed before. Without this each batch may have all its pages made anew, which takes twice as long as the
# copies.
torch.empty(16 * MIB, dtype=torch.uint8)

# torch says once a process that there are no read-only tensors; whoever asks for no copy has been told.
warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning, module=__name__)


class FromCache:
    """What the datasets share: where their paths come from, and how a sample is made.

    Each process that unpickles one opens the cache for itself; what is pickled is the cache's directory and
    options, never a credential.
    """

    def __init__(
        self, cache: Cache, paths: Iterable[str], decode: Decode | None = None, zero_copy: bool = False
    ) -> None:
        """Keep the paths. Raises: TypeError (no paths; decode cannot be called)."""
        if decode is not None and not callable(decode):
            raise TypeError(f"decode: expected a function of path and data, got {type(decode).__name__}")
        self.cache: Final = cache
        self.paths: Final = paths if isinstance(paths, PackedPaths) else PackedPaths(paths)
        self._decode: Final = decode
        self._zero_copy: Final = zero_copy

    @classmethod
    def from_prefix(cls, cache: Cache, prefix: str, *, glob: str | None = None, **options: Any) -> Self:
        """Make a dataset of all objects below a directory, in the order of their paths.

        glob: only those whose path from the prefix on matches, for example ``"**/*.jpg"``. options are the
        constructor's. Raises: TypeError (another option); NotFound; ValueError (no object); as `Cache.walk`.
        """
        refuse_unknown(cls, options, "glob")
        return cls(cache, PackedPaths(paths_below(cache, prefix, glob)), **options)

    @classmethod
    def from_manifest(
        cls, cache: Cache, name: str, version: str | None = None, *, glob: str | None = None, **options: Any
    ) -> Self:
        """Make a dataset of what a manifest lists, in its order of access if it has one.

        version: by default the one in use now; it stays this one whatever is put in use later. Raises:
        TypeError (another option); ManifestNotFound; ConfigError (none is in use); ValueError (no object).
        """
        refuse_unknown(cls, options, "version", "glob")
        return cls(cache, PackedPaths(paths_listed(cache, name, version, glob)), **options)

    def _sample(self, path: str, view: View) -> Any:
        """Make a sample of an object."""
        if self._decode is not None:
            return self._decode(path, view if self._zero_copy else view.copy())
        # Over a memoryview, so that the view cannot be released under the tensor.
        return over(memoryview(view)) if self._zero_copy else tensor_of(view)


def tensor_of(view: View) -> torch.Tensor:
    """Return a tensor of bytes with memory of its own."""
    # Over a bytearray: half as many steps as a tensor's own storage and a view of it to copy to.
    return over(memoryview(bytearray(view)))


def over(data: memoryview, dtype: torch.dtype = torch.uint8) -> torch.Tensor:
    """Return a flat tensor over a buffer, which it keeps and which may be read-only."""
    return torch.frombuffer(data, dtype=dtype) if len(data) else torch.empty(0, dtype=dtype)


def refuse_unknown(kind: Callable[..., Any], options: Mapping[str, Any], *others: str) -> None:
    """Hold options to those that a class takes, and others. Raises: TypeError (names the nearest)."""
    parameters = inspect.signature(kind).parameters.values()
    known = [each.name for each in parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    for name in options:
        if name not in (*known, *others):
            raise TypeError(f"{kind.__name__}: there is no option {name!r}{nearest(name, (*known, *others))}")
