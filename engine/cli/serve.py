"""``serve``: this host's cache directory as a member of a group."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from forebay.cli.app import DONE
from forebay.cli.gateway import BesideMember, address_of, announced_port, listening, serve_alone
from forebay.cli.interrupt import asked_to_end_if_interrupted, asked_to_restart_if_told
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import printable
from forebay.config import parse_bytes
from forebay.errors import ConfigError
from forebay.opening import cache_options, security_options

if TYPE_CHECKING:
    from socket import socket

    from forebay.cache import Cache
    from forebay.peer.replicas.pushing import ReplicaLimits
    from forebay.peer.security.options import SecurityOptions
    from forebay.peer.server import PeerServer


@click.command()
@common_options
@click.option("--listen", metavar="HOST:PORT", default="127.0.0.1:7070", show_default=True, help="For gRPC.")
@click.option("--advertise", metavar="HOST:PORT", help="What others connect to. [what is listened on]")
@click.option("--data-port", type=int, default=0, metavar="PORT", help="For blocks; -1: none. [the last]")
@click.option("--group", metavar="NAME", help="The group to be a member of [FOREBAY_GROUP].")
@click.option(
    "--peers", metavar="HOST:PORT,...", help="Some of its members, or a name for all [FOREBAY_PEERS]."
)
@click.option(
    "--weight", type=float, default=1.0, show_default=True, help="Its part of the data, beside others'."
)
@click.option("--zone", default="", help="What fails together: copies are kept apart.")
@click.option("--webhdfs", metavar="HOST:PORT", help="Serve WebHDFS, too, or alone without a group.")
@click.option("--insecure", is_flag=True, help="Listen beyond this machine without TLS or tokens.")
@click.option("--ready-fd", type=int, metavar="N", help="Say 'ready' on this descriptor when it serves.")
@pass_session
def serve(
    session: Session,
    listen: str,
    advertise: str | None,
    data_port: int,
    group: str | None,
    peers: str | None,
    weight: float,
    zone: str,
    webhdfs: str | None,
    insecure: bool,
    ready_fd: int | None,
) -> int:
    """Serve this host's cache directory to a group, or by WebHDFS, until a signal ends it.

    SIGTERM and SIGINT have it say that it leaves, hand over what is hot, and finish what is under way.
    SIGUSR1 is for a restart: it only finishes what is under way, and started again within 30 s it has moved
    nothing. TLS and tokens are settings; see docs/peers.md.
    """
    import uvloop

    from forebay.fuse.readiness import tell_ready
    from forebay.peer.server import PeerServer, ServeOptions

    settings = session.settings()
    options = dict(settings.options)
    if insecure:
        options["insecure"] = True
    name = group or options.get("group")
    security = security_options(options)
    gateway_socket = None if webhdfs is None else listening(webhdfs, security)
    if not name:
        if gateway_socket is None:
            raise ConfigError("group: give the name of the group to be a member of (--group), or --webhdfs")
        return _serve_alone(session, gateway_socket, security, ready_fd)
    seeds = peers.split(",") if peers is not None else options.get("peers", ())
    server = PeerServer(
        session.folder(),
        settings.tiers,
        cache_options(options),
        ServeOptions(
            group=name,
            listen=listen,
            advertise=advertise,
            data_port=None if data_port < 0 else data_port,
            peers=tuple(seed.strip() for seed in seeds if seed.strip()),
            weight=weight,
            zone=zone,
            security=security,
            gateway_port=announced_port(gateway_socket, listen, security),
            replicas=_replica_limits(options),
        ),
    )

    gateway = BesideMember(gateway_socket, security)

    def ready(serving: PeerServer) -> None:
        gateway.start(serving)
        _tell(session, serving, name, None if gateway_socket is None else address_of(gateway_socket))
        tell_ready(ready_fd)

    restart = partial(server.stop, leave=False)
    with asked_to_end_if_interrupted(server.stop), asked_to_restart_if_told(restart):
        uvloop.run(server.run(ready, gateway.end))
    return DONE


def _replica_limits(options: dict[str, Any]) -> ReplicaLimits:
    """Return how fast copies are pushed. Raises: ConfigError."""
    from forebay.peer.replicas.pushing import ReplicaLimits

    given = options.get("replica_rate_limit")
    if given is None:
        return ReplicaLimits()
    rate_bytes_s = parse_bytes(given, "replica_rate_limit")
    if rate_bytes_s < 1:
        raise ConfigError("replica_rate_limit: copies need a byte a second at least")
    return ReplicaLimits(rate_bytes_s=rate_bytes_s)


def _serve_alone(
    session: Session, gateway_socket: socket, security: SecurityOptions, ready_fd: int | None
) -> int:
    from forebay.fuse.readiness import tell_ready

    def ready() -> None:
        _tell_gateway(session, cache, address_of(gateway_socket))
        tell_ready(ready_fd)

    with session.open_cache() as cache:
        serve_alone(cache, gateway_socket, security, ready)
    return DONE


def _tell_gateway(session: Session, cache: Cache, address: str) -> None:
    """Say what is served by WebHDFS alone."""
    if session.as_json:
        nobody = dict.fromkeys(("group", "member", "address", "data_port"))
        click.echo(json.dumps({**nobody, "cache_dir": cache.path, "webhdfs": address}))
    else:
        click.echo(f"serving {printable(cache.path)} by WebHDFS on {address}")
    sys.stdout.flush()


def _tell(session: Session, server: PeerServer, group: str, bound: str | None) -> None:
    """Say what is served where. bound: where the gateway listens, if there is one."""
    webhdfs = server.gateway or bound
    told: dict[str, Any] = {
        "group": group,
        "member": server.member_id,
        "address": server.address,
        "data_port": server.data_port,
        "cache_dir": server.cache.path,
        "webhdfs": webhdfs,
    }
    if session.as_json:
        # In one line, for whoever waits for it: the program goes on.
        click.echo(json.dumps(told))
    else:
        port = f", blocks on port {server.data_port}" if server.data_port else ""
        gateway = f", WebHDFS on {webhdfs}" if webhdfs else ""
        served = f"serving {printable(server.cache.path)} to group {printable(group)} on {server.address}"
        click.echo(f"{served}{port}{gateway}")
    sys.stdout.flush()
