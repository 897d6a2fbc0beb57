"""``pin``, ``unpin``, ``ttl`` and ``policy``: what is kept, for how long, where, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click

from forebay.cache import Cache
from forebay.cache.policies.policy import NAMES, Policy
from forebay.cli.each import for_each
from forebay.cli.kinds import CACHE_PATH, SIZE
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, printable

_NEVER: Final = "never"
_HEADINGS: Final = ("path", "what", "value")
_PATHS: Final = click.argument("paths", nargs=-1, required=True, metavar="PATH...", type=CACHE_PATH)


@click.command()
@common_options
@_PATHS
@pass_session
def pin(session: Session, paths: tuple[str, ...]) -> int:
    """Keep each PATH and all below it from eviction, what is cached now and what will be.

    It is refused where more than 80 % of a tier would be pinned. Fetching it is another matter: see load.
    """
    return _tell_blocks(session, paths, "pinned", lambda cache, path: cache.pin(path))


@click.command()
@common_options
@_PATHS
@pass_session
def unpin(session: Session, paths: tuple[str, ...]) -> int:
    """Let each PATH and all below it be evicted again."""
    return _tell_blocks(session, paths, "unpinned", lambda cache, path: cache.unpin(path))


@click.command()
@common_options
@_PATHS
@click.argument("seconds")
@pass_session
def ttl(session: Session, paths: tuple[str, ...], seconds: str) -> int:
    """Free each PATH and all below it SECONDS after it was cached, what is cached now SECONDS from now.

    SECONDS may be "never". The under storage is not touched.
    """
    after_s = _seconds(seconds)
    return _tell_blocks(session, paths, "due", lambda cache, path: cache.ttl(path, after_s))


@click.command()
@common_options
@_PATHS
@click.option("--at-least", type=int, default=1, metavar="N", help="Members that each block is to lie on.")
@click.option("--at-most", type=int, metavar="N", help="And may lie on, where it is read often.")
@pass_session
def replicas(session: Session, paths: tuple[str, ...], at_least: int, at_most: int | None) -> int:
    """Have each block of each PATH, and of all below it, lie on several members of the group.

    Copies are made in the background, and made anew when a member is lost. Without an option there is one.
    """
    said: list[tuple[str, Policy]] = []
    with session.open_cache() as cache:
        code = for_each(
            paths, session, lambda path: said.append((path, cache.replicas(path, at_least, at_most)))
        )
    if session.as_json:
        echo_json([{"path": path, "at_least": at_least, "at_most": at_most or at_least} for path, _ in said])
    else:
        for path, _ in said:
            click.echo(f"{printable(path)}: on {at_least} to {at_most or at_least} members")
    return code


def _seconds(text: str) -> float | None:
    if text == _NEVER:
        return None
    try:
        return float(text)
    except ValueError:
        words = f"{text!r} is neither seconds nor {_NEVER!r}"
        raise click.BadParameter(words, param_hint="SECONDS") from None


def _tell_blocks(
    session: Session, paths: tuple[str, ...], done: str, act: Callable[[Cache, str], int]
) -> int:
    found: list[dict[str, Any]] = []
    with session.open_cache() as cache:
        code = for_each(paths, session, lambda path: found.append({"path": path, "blocks": act(cache, path)}))
    if session.as_json:
        echo_json(found)
    else:
        for each in found:
            click.echo(f"{printable(each['path'])}: {each['blocks']} cached blocks {done}")
    return code


@click.group()
@common_options
def policy() -> None:
    """Say what holds for a path and all below it; of each thing the deepest word holds."""


@policy.command("set")
@common_options
@click.argument("path", type=CACHE_PATH)
@click.option("--pin/--no-pin", default=None, help="Keep from eviction what is admitted from now on.")
@click.option("--skip/--no-skip", default=None, help="Cache nothing.")
@click.option("--small-reads", "read_bytes_max", type=SIZE, help="Cache what reads of so many bytes ask for.")
@click.option("--ttl", "ttl_s", type=float, metavar="S", help="Free so long after it was cached.")
@click.option("--max-age", type=float, metavar="S", help="Seconds that an answer holds; 0: always check.")
@click.option("--immutable", is_flag=True, help="What was seen once never changes.")
@click.option("--retention", metavar="R", help="epoch, s3fifo or lru.")
@click.option("--medium", metavar="M", help="The tier that is tried first: MEM, SSD or HDD.")
@pass_session
def set_(session: Session, /, path: str, immutable: bool, max_age: float | None, **fields: Any) -> None:
    """Say something of PATH and all below it; what is not given stays as it was said before."""
    if immutable and max_age is not None:
        raise click.UsageError("--immutable and --max-age exclude each other")
    fields["max_age"] = "immutable" if immutable else max_age
    given = {name: value for name, value in fields.items() if value is not None}
    if not given:
        raise click.UsageError("nothing is said; `forebay policy clear` takes back what was")
    with session.open_cache() as cache:
        _echo_one(session, path, cache.set_policy(path, **given))


@policy.command("list")
@common_options
@click.argument("path", type=CACHE_PATH)
@pass_session
def list_(session: Session, path: str) -> None:
    """List all that is said at and below PATH."""
    with session.open_cache() as cache:
        found = cache.policies(path)
    if session.as_json:
        echo_json([_fields(each, said) for each, said in found.items()])
    else:
        echo_table(_HEADINGS, [row for each, said in found.items() for row in _rows(each, said)])


@policy.command()
@common_options
@click.argument("path", type=CACHE_PATH)
@pass_session
def show(session: Session, path: str) -> None:
    """Show what holds for PATH, by all that is said of it and further up."""
    with session.open_cache() as cache:
        _echo_one(session, path, cache.policy(path))


@policy.command()
@common_options
@click.argument("path", type=CACHE_PATH)
@pass_session
def clear(session: Session, path: str) -> None:
    """Take back all that is said of PATH and of those below it."""
    with session.open_cache() as cache:
        cache.clear_policy(path)
    if session.as_json:
        echo_json({"cleared": path})
    else:
        click.echo(f"cleared {printable(path)}")


def _echo_one(session: Session, path: str, said: Policy) -> None:
    if session.as_json:
        echo_json(_fields(path, said))
    else:
        echo_table(_HEADINGS, _rows(path, said))


def _fields(path: str, said: Policy) -> dict[str, Any]:
    return {"path": path} | {name: getattr(said, name) for name in NAMES}


def _rows(path: str, said: Policy) -> list[tuple[str, str, str]]:
    return [(path, name, str(value)) for name, value in said.to_json().items()]
