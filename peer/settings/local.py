"""The settings of this host's cache: what there is, as items have it, and how an item is made to hold here.

It goes through the verbs of ``Cache``, so that whoever has the cache open sees a change that came from
another member as one that was made here. A manifest's content is a digest of its listing, which goes beside
it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final

from forebay.errors import ConfigError, NotAttached, PinLimit
from forebay.peer.paths import encoded
from forebay.peer.settings.items import DATASET, MANIFEST, POLICY, SHOWN, Content, Item

if TYPE_CHECKING:
    from forebay.cache import Cache, ManifestStatus

# What is a host's own affair, or has an item of its own.
_OWN_FIELDS: Final = ("id", "name", "manifest", "manifest_before")
_ARGUMENTS: Final = {"quota_bytes": "quota"}
_DIGEST_BYTES: Final = 16


class LocalSettings:
    """Reads and changes the settings of one cache. For one thread at a time."""

    def __init__(self, cache: Cache) -> None:
        """Use this cache."""
        self._cache: Final = cache
        # A manifest never changes: (dataset, version, when it was made) -> the digest of its listing.
        self._digests: Final[dict[tuple[str, str, float], str]] = {}

    def commit(self) -> int:
        """Return a number that stays while ``read`` would return the same."""
        return self._cache.settings_commit()

    def read(self) -> dict[str, Content]:
        """Return all there is, by key. Blocking: goes through each manifest once. Raises: OSError."""
        found: dict[str, Content] = {}
        for dataset in self._cache.datasets():
            with suppress(NotAttached):
                manifests = self._cache.manifests(dataset.name)
                policies = self._cache.policies(dataset.name)
                content = {
                    name: value for name, value in dataset.to_json().items() if name not in _OWN_FIELDS
                }
                found[f"{DATASET}/{dataset.name}"] = content
                if dataset.manifest is not None:
                    found[f"{SHOWN}/{dataset.name}"] = {"manifest": dataset.manifest}
                for manifest in manifests:
                    key = f"{MANIFEST}/{dataset.name}/{manifest.version}"
                    found[key] = self._manifest_content(manifest)
                for path, policy in policies.items():
                    key = f"{POLICY}/{dataset.name}/{_digest_of_path(path)}"
                    found[key] = {"path": path, "policy": policy.to_json()}
        return found

    def apply(self, item: Item, listing: IO[bytes] | None = None) -> None:
        """Make an item hold here; listing is that of a manifest, read to its end.

        Nothing happens where it holds already. Raises: ConfigError, NotAttached (what it needs is not here,
        or it cannot be so here); OSError (the under storage does not answer, the disk is full).
        """
        apply: dict[str, Callable[[], None]] = {
            DATASET: lambda: self._apply_dataset(item),
            MANIFEST: lambda: self._apply_manifest(item, listing),
            SHOWN: lambda: self._apply_shown(item),
            POLICY: lambda: self._apply_policy(item),
        }
        try:
            apply[item.kind]()
        except (AttributeError, KeyError, TypeError) as error:
            raise ConfigError(f"setting {item.key!r}: its content is not understood: {error}") from error

    def replaces(self, item: Item) -> bool:
        """Say whether a dataset's name shows something else here than an item wants it to."""
        wanted = None if item.kind != DATASET or item.content is None else item.content.get("uri")
        return isinstance(wanted, str) and any(
            known.name == item.dataset and known.uri != wanted for known in self._cache.datasets()
        )

    def write_listing(self, item: Item, spool: IO[bytes]) -> None:
        """Write the listing of a manifest. Raises: as Cache.export_manifest."""
        self._cache.export_manifest(item.dataset, item.key.split("/", 2)[2], spool)

    def _manifest_content(self, manifest: ManifestStatus) -> Content:
        known = (manifest.dataset, manifest.version, manifest.created)
        digest = self._digests.get(known)
        if digest is None:
            digest = self._digests[known] = self._digest(manifest)
        return {"objects": manifest.objects, "bytes": manifest.bytes, "digest": digest}

    def _digest(self, manifest: ManifestStatus) -> str:
        with tempfile.TemporaryFile() as spool:
            self._cache.export_manifest(manifest.dataset, manifest.version, spool)
            spool.seek(0)
            return digest_of_listing(spool, is_ordered=manifest.is_ordered)

    def _apply_dataset(self, item: Item) -> None:
        name, content = item.dataset, item.content
        known = {dataset.name: dataset for dataset in self._cache.datasets()}.get(name)
        if content is None:
            if known is not None:
                self._cache.detach(name)
            return
        arguments: dict[str, Any] = {_ARGUMENTS.get(each, each): value for each, value in content.items()}
        options = arguments.pop("options")
        if not isinstance(content["uri"], str):
            raise ConfigError(f"setting {item.key!r}: its uri is no text")
        if known is not None and known.uri != content["uri"]:
            # Before the other is asked whether it is there: what this name showed is not to be seen any more.
            self._cache.detach(name)
        self._cache.attach(name, **arguments, **options)

    def _apply_manifest(self, item: Item, listing: IO[bytes] | None) -> None:
        name, version, content = item.dataset, item.key.split("/", 2)[2], item.content
        if content is None:
            with suppress(NotAttached):
                self._cache.delete_manifest(name, version)
            return
        known = {manifest.version: manifest for manifest in self._cache.manifests(name)}.get(version)
        if known is not None:
            if self._manifest_content(known)["digest"] != content["digest"]:
                raise ConfigError(
                    f"manifest {version!r} of dataset {name!r} lists other objects here than at another "
                    "member; delete it here, or there"
                )
            return
        if listing is None:
            raise ConfigError(f"setting {item.key!r}: came without its listing")
        self._cache.import_manifest(name, version, listing)

    def _apply_shown(self, item: Item) -> None:
        wanted = None if item.content is None else str(item.content["manifest"])
        for dataset in self._cache.datasets():
            if dataset.name == item.dataset:
                if dataset.manifest != wanted:
                    self._cache.use_manifest(dataset.name, wanted)
                return
        if wanted is not None:
            raise NotAttached(f"no dataset {item.dataset!r} is attached")

    def _apply_policy(self, item: Item) -> None:
        from forebay.cache import POLICY_FIELDS

        if item.content is None:
            with suppress(NotAttached):
                for path in self._cache.policies(item.dataset):
                    if item.key == f"{POLICY}/{item.dataset}/{_digest_of_path(path)}":
                        self._cache.set_policy(path, **dict.fromkeys(POLICY_FIELDS))
            return
        path, said = item.content["path"], item.content["policy"]
        before = self._cache.policies(item.dataset).get(path)
        # First what can be refused: a pin that does not fit here leaves all as it was.
        if said.get("pin") and not (before is not None and before.pin):
            self._pin(path)
        if said.get("ttl_s") is not None and (before is None or before.ttl_s != said["ttl_s"]):
            self._cache.ttl(path, said["ttl_s"] or None)
        self._cache.set_policy(path, **{name: said.get(name) for name in POLICY_FIELDS})

    def _pin(self, path: str) -> None:
        with suppress(PinLimit):
            # What is cached already and does not fit stays unpinned; what comes is pinned as far as it fits.
            self._cache.pin(path)


def digest_of_listing(lines: Iterable[bytes], *, is_ordered: bool) -> str:
    """Return what tells listings apart: of all lines, in their order only where that means something."""
    if is_ordered:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for line in lines:
            digest.update(line)
        return digest.hexdigest()
    total = 0
    for line in lines:
        total += int.from_bytes(hashlib.blake2b(line, digest_size=_DIGEST_BYTES).digest())
    return (total % (1 << 8 * _DIGEST_BYTES)).to_bytes(_DIGEST_BYTES).hex()


def _digest_of_path(path: str) -> str:
    return hashlib.blake2b(encoded(path), digest_size=_DIGEST_BYTES).hexdigest()
