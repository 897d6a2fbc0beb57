"""What Hadoop's FileSystem describes, with its fields and its units."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileStatus:
    """A file or a directory. Times are milliseconds since 1970; of a directory they are 0.

    length and block_size are bytes; a directory has neither, nor replicas. permission is that of Unix, in
    its nine bits. version is
    the under storage's word for the content.
    """

    path: str
    length: int
    is_directory: bool
    block_replication: int
    block_size: int
    modification_time: int
    access_time: int
    permission: int
    owner: str
    group: str
    version: str
    symlink: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is a file."""
        return not self.is_directory

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class BlockLocation:
    """length bytes of a file from offset on, and who answers for them, the first first.

    hosts are their names, names HOST:PORT of their servers, gateways those of their WebHDFS gateways as far
    as they have one. topology_paths is what Hadoop derives from hosts: /default-rack/HOST.
    """

    offset: int
    length: int
    hosts: tuple[str, ...]
    names: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    corrupt: bool = False

    @property
    def topology_paths(self) -> tuple[str, ...]:
        """Where the hosts are, all in one rack."""
        return tuple(f"/default-rack/{name}" for name in self.names)


@dataclass(frozen=True, slots=True)
class ContentSummary:
    """What lies at and below a path: bytes, files, directories (itself included), and bytes with replicas.

    quota and space_quota are -1, for none: a dataset's quota bounds what is cached and not what there is.
    """

    length: int
    file_count: int
    directory_count: int
    space_consumed: int
    quota: int = -1
    space_quota: int = -1


@dataclass(frozen=True, slots=True)
class FileChecksum:
    """A checksum as HDFS makes it: its algorithm with its parameters, and the bytes."""

    algorithm: str
    bytes: bytes

    @property
    def length(self) -> int:
        """How many bytes."""
        return len(self.bytes)


@dataclass(frozen=True, slots=True)
class ServerDefaults:
    """What a client goes by where it was told nothing."""

    block_size: int
    bytes_per_checksum: int
    write_packet_size: int
    replication: int
    file_buffer_size: int
    checksum_type: str = "CRC32C"
    trash_interval: int = 0
