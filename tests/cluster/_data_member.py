"""A script: a member with a data port and a greeting, whose view of the group it is told on standard input.

python _data_member.py CONFIGURATION, a JSON object with cache, tier, endpoint and block_bytes. Prints a JSON
object with its id, address and data_port, and then OK for each view that it has taken. Ends with its input.
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from forebay.cache import Cache
from forebay.config import MIB, Tier
from forebay.peer.answer import Answerer
from forebay.peer.data.server import DataServer
from forebay.peer.greeting import PROTOCOL
from forebay.peer.group import Group
from forebay.peer.member import Member, View
from forebay.peer.proto import forebay_pb2 as messages
from forebay.peer.proto import forebay_pb2_grpc as services
from forebay.peer.ring import METHOD, RUN_BYTES
from forebay.peer.security.caller import Caller
from forebay.peer.security.permissions import Permissions

GROUP = "g"
DATASET = "d"


class Greeter(services.PeerServicer):
    """Knows itself and its view, and says both to whoever asks."""

    def __init__(self, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.view = View(0, ())
        self.own = messages.Member()

    def Hello(  # noqa: N802  (as in forebay.proto)
        self, request: messages.HelloRequest, context: object = None
    ) -> messages.HelloReply:
        return messages.HelloReply(
            protocol=PROTOCOL,
            group=GROUP,
            block_bytes=self.block_bytes,
            placement=messages.Placement(method=METHOD, run_bytes=RUN_BYTES),
            self=self.own,
            view=self.view.to_message(),
        )

    def welcome(self, hello: bytes, token: str | None, address: str) -> tuple[bytes, Any]:
        reply = self.Hello(messages.HelloRequest.FromString(hello))
        return reply.SerializeToString(), Caller(address)


def main() -> None:
    given = json.loads(sys.argv[1])
    block_bytes = given["block_bytes"]
    group = Group(GROUP, [], "member", given["cache"], block_bytes=block_bytes)
    tier = Tier(given["tier"], given.get("quota", 64 * MIB), "MEM")
    cache = Cache(given["cache"], [tier], block_bytes=block_bytes, remote=group)
    greeter = Greeter(block_bytes)
    answerer = Answerer(
        cache.serving(group.owner_side()),
        Permissions(),
        lambda: greeter.view.to_message().SerializeToString(),
    )
    server = grpc.server(ThreadPoolExecutor(2))
    services.add_PeerServicer_to_server(greeter, server)
    port = server.add_insecure_port("127.0.0.1:0")
    data = DataServer(answerer, greeter.welcome)
    own = Member(str(group.own_id), f"127.0.0.1:{port}", data.start("127.0.0.1"), host=given["cache"])
    greeter.own = own.to_message()
    server.start()
    cache.attach(DATASET, "s3://bucket", endpoint_url=given["endpoint"], max_age=None)
    print(json.dumps({"id": own.id, "address": own.address, "data_port": own.data_port}), flush=True)
    for line in sys.stdin:
        view = messages.View.FromString(bytes.fromhex(line))
        greeter.view = View.from_message(view)
        group.take_view(greeter.view)
        print("OK", flush=True)
    data.close()
    answerer.close()
    server.stop(None)
    cache.close()


if __name__ == "__main__":
    main()
