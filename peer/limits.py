"""The limits of a member's gRPC server, each named, so that none is gRPC's own unlimited default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from forebay.config import MIB


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What one member puts up with.

    message_bytes: of one message in either direction. streams: calls at a time on one connection. calls: at a
    time in all; further ones are answered RESOURCE_EXHAUSTED. metadata_bytes: of one call's headers.
    question_threads, stream_threads, work_threads: for calls that wait for the disk or the storage, for
    streams of blocks, which wait for who takes them, and for commands, which may be long: none of these waits
    for a thread of the others'.
    keepalive_s: after so long without traffic a connection is tried; keepalive_timeout_s: and closed, if
    nothing comes. idle_s: a connection without calls is closed. grace_s: for what is under way at the end.
    """

    message_bytes: int = 16 * MIB
    streams: int = 1_024
    calls: int = 4_096
    metadata_bytes: int = 16 << 10
    question_threads: int = 32
    stream_threads: int = 64
    work_threads: int = 16
    keepalive_s: float = 30.0
    keepalive_timeout_s: float = 10.0
    idle_s: float = 600.0
    grace_s: float = 10.0

    def grpc_options(self) -> list[tuple[str, Any]]:
        """Return them as options of a gRPC server."""
        return [
            ("grpc.max_receive_message_length", self.message_bytes),
            ("grpc.max_send_message_length", self.message_bytes),
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.max_metadata_size", self.metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes),
            ("grpc.keepalive_time_ms", int(self.keepalive_s * 1_000)),
            ("grpc.keepalive_timeout_ms", int(self.keepalive_timeout_s * 1_000)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
            ("grpc.max_connection_idle_ms", int(self.idle_s * 1_000)),
            # A port that another process has is an error, and not shared with it.
            ("grpc.so_reuseport", 0),
        ]
