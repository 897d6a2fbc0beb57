"""Registers the service Peer, whose stream of blocks takes its messages as they are.

What protoc makes registers all methods of a service with protobuf around each message, and wins over what was
registered before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc

from forebay.peer.proto import forebay_pb2 as pb
from forebay.peer.service.blocks import BlocksService
from forebay.peer.service.reads import ReadService

_STREAM: Final = "Blocks"
_MAKES: Final[Mapping[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def add_peer_service(server: grpc.aio.Server, reads: ReadService, blocks: BlocksService) -> None:
    """Have the server answer the calls of Peer."""
    service = pb.DESCRIPTOR.services_by_name["Peer"]
    handlers = {_STREAM: blocks.handler()}
    for method in service.methods:
        if method.name != _STREAM:
            make = _MAKES[method.client_streaming, method.server_streaming]
            handlers[method.name] = make(
                getattr(reads, method.name),
                request_deserializer=getattr(pb, method.input_type.name).FromString,
                response_serializer=getattr(pb, method.output_type.name).SerializeToString,
            )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
