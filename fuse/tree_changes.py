"""Changes of names in a mount: made at the under storage, and followed by what is open and known here."""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, nullcontext
from typing import Final

from forebay.cache import Node, Nodes, NodeWriter
from forebay.errors import NotFound, UnderStorageError
from forebay.fuse.folders import Folders
from forebay.fuse.opened import OpenInode, OpenInodes


class TreeChanges:
    """Changes the tree of one mount. Blocking. Threads: any."""

    def __init__(self, nodes: Nodes, writer: NodeWriter, inodes: OpenInodes, folders: Folders) -> None:
        """Use these of the mount."""
        self._nodes: Final = nodes
        self._writer: Final = writer
        self._inodes: Final = inodes
        self._folders: Final = folders

    def unlink(self, parent: int, path: str) -> None:
        """Remove a file. Raises: as ``Cache.delete``."""
        opened = self._inodes.at(path)
        with nullcontext() if opened is None or opened.draft is None else opened.draft.held():
            if opened is not None and self._is_here_alone(opened):
                inode = opened.inode
            else:
                node = self._found(path)
                inode = node.inode
                self._inodes.keep(inode)
                self._writer.delete(path)
            self._inodes.removed(path, inode)
        self._nodes.removed(path)
        self._keep_directory(parent, path)

    def mkdir(self, path: str) -> None:
        """Make a directory. Raises: as ``Cache.mkdir``."""
        try:
            self._writer.mkdir(path)
        except UnderStorageError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            self._folders.add(path, self._nodes.bind(path))

    def rmdir(self, parent: int, path: str) -> None:
        """Remove an empty directory. Raises: as ``Cache.delete``."""
        if self._folders.inside(path) or self._inodes.within(path):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        try:
            self._writer.delete(path)
        except NotFound:
            if self._folders.get(path) is None:
                raise
        self._folders.remove(path)
        self._nodes.removed(path)
        self._keep_directory(parent, path)

    def rename(self, parent: int, path: str, target: str) -> None:
        """Rename a file or a directory. Raises: as ``Cache.rename``."""
        if path == target:
            return
        inode = self._renamed(path, target)
        self._nodes.moved(path, target, inode)
        self._keep_directory(parent, path)

    def _renamed(self, path: str, target: str) -> int:
        """Rename, and return the number of what was renamed."""
        opened = self._inodes.at(path)
        if opened is not None:
            return self._rename_opened(opened, path, target)
        inode = self._folders.get(path)
        if inode is not None and not self._is_at_source(path):
            self._refuse_full(target)
            self._rename_folder(path, target)
            return inode
        node = self._found(path)
        if node.entry.is_dir:
            self._refuse_full(target)
            self._rename_directory(path, target)
            return node.inode
        # Who reads it goes on reading.
        self._inodes.keep(node.inode)
        opened = self._inodes.at(path)
        if opened is not None:
            return self._rename_opened(opened, path, target)
        self._replace(target)
        self._writer.rename(path, target)
        return node.inode

    def _rename_opened(self, opened: OpenInode, path: str, target: str) -> int:
        """Rename a file that is open with a draft."""
        draft = opened.draft
        assert draft is not None
        with draft.held():
            self._replace(target)
            entry = None
            if not self._is_here_alone(opened):
                draft.commit()
                self._writer.rename(path, target)
                entry = self._found(target).entry
            draft.move(target, entry)
            self._inodes.moved(path, target)
        return opened.inode

    def _rename_directory(self, path: str, target: str) -> None:
        """Rename a directory, with the files that are being written below it."""
        with ExitStack() as held:
            within = self._inodes.within(path)
            for _, opened in within:
                if opened.draft is not None:
                    held.enter_context(opened.draft.held())
                    if not self._is_here_alone(opened):
                        opened.draft.commit()
            self._writer.rename_directory(path, target)
            for each, opened in within:
                new = f"{target}{each[len(path) :]}"
                if opened.draft is not None:
                    entry = None if self._is_here_alone(opened) else self._found(new).entry
                    opened.draft.move(new, entry)
                self._inodes.moved(each, new)
        self._folders.remove(target)
        self._folders.move(path, target)

    def _rename_folder(self, path: str, target: str) -> None:
        """Rename a directory that only this mount knows of, with what is being written in it."""
        for each, opened in self._inodes.within(path):
            new = f"{target}{each[len(path) :]}"
            if opened.draft is not None:
                opened.draft.move(new, None)
            self._inodes.moved(each, new)
        self._folders.remove(target)
        self._folders.move(path, target)

    def _refuse_full(self, target: str) -> None:
        """See that a directory may take that place. Raises: OSError (ENOTEMPTY)."""
        if self._folders.inside(target) or self._inodes.within(target):
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), target)
        # Where a directory is no thing of its own it would be merged into what is there.
        if not self._writer.keeps_directories:
            self._writer.refuse_full(target)

    def _replace(self, target: str) -> None:
        """Have what is open of a file that is about to be replaced go on without its name."""
        opened = self._inodes.at(target)
        if opened is not None:
            self._inodes.keep(opened.inode)
            self._inodes.removed(target, opened.inode)
            return
        try:
            node = self._nodes.node_at(target)
        except NotFound:
            return
        if self._inodes.get(node.inode) is not None:
            self._inodes.keep(node.inode)
            self._inodes.removed(target, node.inode)

    def _keep_directory(self, parent: int, path: str) -> None:
        """Keep the directory of what has gone, which may have gone with it."""
        directory = path.rpartition("/")[0]
        if directory and not self._writer.keeps_directories:
            self._folders.add(directory, self._nodes.bind(directory, parent))

    def _is_at_source(self, path: str) -> bool:
        try:
            self._found(path)
        except NotFound:
            return False
        return True

    def _found(self, path: str) -> Node:
        """Return what a path is. Raises: as UnderStorage.stat."""
        return self._nodes.node_at(path)

    def _is_here_alone(self, opened: OpenInode) -> bool:
        """Say whether a file was made here and never written."""
        return opened.draft is not None and opened.draft.entry is None
