"""What the gateway answers, in the JSON of WebHDFS."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

from forebay.api.hadoop.status import BlockLocation, ContentSummary, FileChecksum, FileStatus, ServerDefaults

JSON: Final = "application/json"

_CRC32C_ID = 2
# As json.dumps, which looks at its options each time.
_quoted: Final[Callable[[str], str]] = json.JSONEncoder().encode
# Of owners and groups, who are few.
_quoted_name: Final = lru_cache(_quoted)


def text_of(answer: Any) -> bytes:
    """Return an answer as JSON in ASCII: names need not be UTF-8."""
    return json.dumps(answer, separators=(",", ":")).encode()


def status_text(status: FileStatus, suffix: str) -> str:
    """Return a FileStatus as JSON; many are made, one by one, so the text is put together here."""
    kind = "DIRECTORY" if status.is_directory else "FILE"
    return (
        f'{{"accessTime":{status.access_time},"blockSize":{status.block_size},"childrenNum":0,"fileId":0,'
        f'"group":{_quoted_name(status.group)},"length":{status.length},'
        f'"modificationTime":{status.modification_time},"owner":{_quoted_name(status.owner)},'
        f'"pathSuffix":{_quoted(suffix)},"permission":"{status.permission:o}",'
        f'"replication":{status.block_replication},"storagePolicy":0,"type":"{kind}"}}'
    )


def statuses_text(statuses: Iterable[FileStatus]) -> str:
    """Return what lies in a directory, without brackets around it."""
    return ",".join(status_text(status, status.name) for status in statuses)


def file_status(status: FileStatus) -> bytes:
    """Return the answer to GETFILESTATUS."""
    return f'{{"FileStatus":{status_text(status, "")}}}'.encode()


def full_listing(statuses_json: str) -> bytes:
    """Return the answer to LISTSTATUS, whole."""
    return f'{{"FileStatuses":{{"FileStatus":[{statuses_json}]}}}}'.encode()


def partial_listing(statuses_json: str, *, has_more: bool) -> bytes:
    """Return the answer to LISTSTATUS_BATCH; 1 remaining entry stands for some."""
    listed = f'{{"FileStatuses":{{"FileStatus":[{statuses_json}]}}}}'
    text = f'{{"DirectoryListing":{{"partialListing":{listed},"remainingEntries":{int(has_more)}}}}}'
    return text.encode()


def content_summary(summary: ContentSummary) -> dict[str, Any]:
    """Return the answer to GETCONTENTSUMMARY."""
    return {
        "ContentSummary": {
            "directoryCount": summary.directory_count,
            "fileCount": summary.file_count,
            "length": summary.length,
            "quota": summary.quota,
            "spaceConsumed": summary.space_consumed,
            "spaceQuota": summary.space_quota,
        }
    }


def file_checksum(checksum: FileChecksum) -> dict[str, Any]:
    """Return the answer to GETFILECHECKSUM."""
    return {
        "FileChecksum": {
            "algorithm": checksum.algorithm,
            "bytes": checksum.bytes.hex(),
            "length": checksum.length,
        }
    }


def block_locations(locations: Iterable[BlockLocation]) -> dict[str, Any]:
    """Return the answer to GETFILEBLOCKLOCATIONS."""
    return {"BlockLocations": {"BlockLocation": [_location(each) for each in locations]}}


def located_blocks(status: FileStatus, locations: Sequence[BlockLocation]) -> dict[str, Any]:
    """Return the answer to GET_BLOCK_LOCATIONS."""
    blocks = [_located(status, each) for each in locations]
    return {
        "LocatedBlocks": {
            "fileLength": status.length,
            "isLastBlockComplete": True,
            "isUnderConstruction": False,
            "lastLocatedBlock": blocks[-1] if blocks else None,
            "locatedBlocks": blocks,
        }
    }


def server_defaults(defaults: ServerDefaults) -> dict[str, Any]:
    """Return the answer to GETSERVERDEFAULTS."""
    return {
        "FsServerDefaults": {
            "blockSize": defaults.block_size,
            "bytesPerChecksum": defaults.bytes_per_checksum,
            "checksumType": _CRC32C_ID,
            "defaultStoragePolicyId": 0,
            "encryptDataTransfer": False,
            "fileBufferSize": defaults.file_buffer_size,
            "keyProviderUri": "",
            "replication": defaults.replication,
            "trashInterval": defaults.trash_interval,
            "writePacketSize": defaults.write_packet_size,
        }
    }


def _location(location: BlockLocation) -> dict[str, Any]:
    return {
        "cachedHosts": [],
        "corrupt": location.corrupt,
        "hosts": list(location.hosts),
        "length": location.length,
        "names": list(location.names),
        "offset": location.offset,
        "storageTypes": ["DISK"] * len(location.hosts),
        "topologyPaths": list(location.topology_paths),
    }


def _located(status: FileStatus, location: BlockLocation) -> dict[str, Any]:
    # The block's number is made up; a client only compares it.
    number = zlib.crc32(
        f"{status.path}\0{status.version}\0{location.offset}".encode("utf-8", "surrogateescape")
    )
    return {
        "block": {
            "blockId": number,
            "blockPoolId": "forebay",
            "generationStamp": 0,
            "numBytes": location.length,
        },
        "blockToken": {"urlString": "AAAAAA"},
        "cachedLocations": [],
        "isCorrupt": location.corrupt,
        "locations": [_node(name, host) for name, host in zip(location.names, location.hosts, strict=True)],
        "startOffset": location.offset,
        "storageTypes": ["DISK"] * len(location.hosts),
    }


def _node(name: str, host: str) -> dict[str, Any]:
    port = name.rpartition(":")[2] if name != host else "0"
    return {
        "adminState": "NORMAL",
        "blockPoolUsed": 0,
        "cacheCapacity": 0,
        "cacheUsed": 0,
        "capacity": 0,
        "dfsUsed": 0,
        "hostName": host,
        "infoPort": 0,
        "infoSecurePort": 0,
        "ipAddr": host.strip("[]"),
        "ipcPort": 0,
        "lastUpdate": 0,
        "name": name,
        "networkLocation": "/default-rack",
        "remaining": 0,
        "storageID": name,
        "xceiverCount": 0,
        "xferPort": int(port),
    }
