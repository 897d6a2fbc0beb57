"""The folder .forebay at the root of every mount: files whose content is made when they are opened.

It is found by name and not listed, unless show_control says so, so that what copies or walks a tree does not
come upon it. A name of the dataset that is the same is not seen in the mount.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from forebay.cache import ROOT_INODE, TRANSIENT_INODE_FIRST
from forebay.errors import not_found
from forebay.fuse.attributes import FOR_EVER_S, Appearance, Attributes

FOLDER: Final = b".forebay"
_FOLDER_INODE: Final = ROOT_INODE + 1


class Virtual:
    """The folder and its files, each a name and what makes its content. Threads: any."""

    def __init__(self, appearance: Appearance, files: Mapping[bytes, Callable[[], bytes]]) -> None:
        """Show these files; making a content may block."""
        self._appearance: Final = appearance
        self._files: Final = dict(files)
        self._inodes: Final = {name: _FOLDER_INODE + 1 + at for at, name in enumerate(self._files)}
        self._names: Final = {inode: name for name, inode in self._inodes.items()}
        assert _FOLDER_INODE + len(files) < TRANSIENT_INODE_FIRST

    def owns(self, inode: int) -> bool:
        """Say whether an inode is of the folder or of what lies in it."""
        return ROOT_INODE < inode < TRANSIENT_INODE_FIRST

    def folder(self) -> Attributes:
        """Return the attributes of the folder."""
        return self._appearance.described(_FOLDER_INODE, 0, 0, FOR_EVER_S, is_dir=True)

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Return the attributes of a name in a directory of these. Raises: NotFound."""
        inode = self._inodes.get(name) if parent == _FOLDER_INODE else None
        if inode is None:
            raise not_found(f"{FOLDER.decode()}/{name.decode('utf-8', 'replace')}")
        return self.attributes(inode)

    def attributes(self, inode: int) -> Attributes:
        """Return the attributes of an inode of these. Raises: NotFound."""
        if inode == _FOLDER_INODE:
            return self.folder()
        if inode not in self._names:
            raise not_found(FOLDER.decode())
        # Like those of /proc they have no size: what is read is made when they are opened.
        return self._appearance.described(inode, 0, 0, 0.0, is_dir=False)

    def is_folder(self, inode: int) -> bool:
        """Say whether it is the folder itself."""
        return inode == _FOLDER_INODE

    def entries(self) -> list[tuple[bytes, Attributes]]:
        """Return what lies in the folder."""
        return [(name, self.attributes(inode)) for name, inode in self._inodes.items()]

    def content(self, inode: int) -> bytes:
        """Make the content of a file. Raises: NotFound."""
        name = self._names.get(inode)
        if name is None:
            raise not_found(FOLDER.decode())
        return self._files[name]()
