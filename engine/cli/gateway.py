"""The WebHDFS gateway of ``serve``: where it listens, and whom it lets in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from forebay.api.webhdfs.exceptions import Unauthenticated
from forebay.api.webhdfs.guard import Act
from forebay.cli.interrupt import asked_to_end_if_interrupted
from forebay.errors import ConfigError

if TYPE_CHECKING:
    from forebay.api.webhdfs.server import GatewayServer
    from forebay.cache import Cache
    from forebay.peer.security.options import SecurityOptions
    from forebay.peer.security.permissions import Permissions
    from forebay.peer.server import PeerServer


def listening(address: str, security: SecurityOptions) -> socket.socket:
    """Return a socket that is bound as the security allows. Raises: ConfigError; OSError (it is in use)."""
    wanted = security.resolve_listen(address)
    if len(wanted) > 1:
        raise ConfigError(f"--webhdfs {address}: it stands for several addresses; give one of them")
    host, port = wanted[0].host, wanted[0].port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host.strip("[]"), port), family=family)
    except OSError as error:
        raise OSError(error.errno, f"cannot be listened on: {error.strerror}", address) from error


def announced_port(bound: socket.socket | None, member: str, security: SecurityOptions) -> int:
    """Return the port of the gateway that other members are told, who connect to it at the member's host.

    0 for none: also where only this machine reaches the gateway, and others the member. member: where that
    listens. Raises: ConfigError.
    """
    from forebay.peer.security.listen import is_loopback

    if bound is None:
        return 0
    host, port = bound.getsockname()[:2]
    hosts = [each.host for each in security.resolve_listen(member)]
    is_reached = not is_loopback(host) or all(map(is_loopback, hosts))
    return int(port) if is_reached else 0


def address_of(bound: socket.socket) -> str:
    """Return HOST:PORT of a socket."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve_alone(
    cache: Cache, bound: socket.socket, security: SecurityOptions, told: Callable[[], None]
) -> None:
    """Serve a cache of this host alone, until a signal ends it; told is called when it serves."""
    import uvloop

    async def run() -> None:
        gateway = make_gateway(cache, bound, security)
        loop = asyncio.get_running_loop()

        def stop() -> None:
            loop.call_soon_threadsafe(gateway.stop)

        with asked_to_end_if_interrupted(stop):
            serving = loop.create_task(gateway.run())
            await gateway.started()
            told()
            await serving

    uvloop.run(run())


class BesideMember:
    """The gateway of a member, for its event loop; nothing where there is none."""

    def __init__(self, bound: socket.socket | None, security: SecurityOptions) -> None:
        """Serve on a socket, if there is one."""
        self._bound: Final = bound
        self._security: Final = security
        self._gateway: GatewayServer | None = None
        self._serving: asyncio.Task[None] | None = None

    def start(self, member: PeerServer) -> None:
        """Begin, once the member serves; the member ends if this does."""
        if self._bound is not None:
            self._gateway = make_gateway(member.cache, self._bound, self._security, member.gateway)
            self._serving = asyncio.get_running_loop().create_task(self._gateway.run())
            self._serving.add_done_callback(lambda _: member.stop())

    async def end(self) -> None:
        """End it, and wait for that. Raises: what it has failed with."""
        if self._gateway is not None and self._serving is not None:
            self._gateway.stop()
            await self._serving


def make_gateway(
    cache: Cache, bound: socket.socket, security: SecurityOptions, own: str = ""
) -> GatewayServer:
    """Return what serves a cache on that socket. own: as of ``Gateway``. Raises: ConfigError."""
    from forebay.api.webhdfs.app import Gateway
    from forebay.api.webhdfs.server import GatewayServer

    guard = None if security.token_keys_file is None else TokenGuard(security.permissions())
    tls = security.server_tls()
    return GatewayServer(Gateway(cache, guard, own=own), bound, None if tls is None else tls.ssl_context)


class TokenGuard:
    """Holds requests to the table of permissions, as calls between peers are."""

    def __init__(self, permissions: Permissions) -> None:
        """Use these."""
        self._permissions: Final = permissions

    def hold(self, act: Act, token: str | None, address: str, paths: Iterable[str]) -> None:
        """Return if the token lets do this to all of the paths. Raises: Unauthenticated; PermissionError."""
        from forebay.peer.security.refusal import Refused

        what = f"webhdfs/{act}"
        try:
            caller = self._permissions.authenticate(what, token, address)
            for path in paths:
                dataset, _, rest = path[1:].partition("/")
                if dataset or act is Act.ANY:
                    self._permissions.check(what, caller, dataset, rest)
                else:
                    # The names of all datasets: for whoever may see all of them.
                    self._permissions.check("webhdfs/root", caller)
        except Refused as refused:
            if refused.is_unauthenticated:
                raise Unauthenticated(str(refused)) from refused
            raise
