"""``mount`` and ``umount``."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from forebay.cli.interrupt import asked_to_end_if_interrupted
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, printable

if TYPE_CHECKING:
    from forebay.cache import Cache
    from forebay.fuse import Mount, MountOptions

_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9._-]+")
_MASK: Final = "OCTAL"


@click.command()
@common_options
@click.argument("what", metavar="NAME|URI")
@click.argument("mountpoint", type=click.Path())
@click.option("--name", help="With a URI: the name to attach it by. [the end of the URI]")
@click.option("--endpoint-url", metavar="URL", help="With a URI: an S3 server other than AWS.")
@click.option("--immutable", is_flag=True, help="With a URI: what was seen once never changes.")
@click.option("--read-only", is_flag=True, help="Refuse everything that writes.")
@click.option("--allow-other", is_flag=True, help="Let other users in, as the permission bits say.")
@click.option("--uid", metavar="ID", help="Who owns what is shown. [you]")
@click.option("--gid", metavar="ID", help="The group that owns what is shown. [yours]")
@click.option("--umask", metavar=_MASK, help="Permission bits that nothing has. [133 files, 022 directories]")
@click.option("--show-control", is_flag=True, help="List the folder .forebay at the root.")
@click.option(
    "-o", "options", metavar="OPTION[,...]", multiple=True, help="Mount options, as they stand in fstab."
)
@pass_session
def mount(
    session: Session,
    what: str,
    mountpoint: str,
    name: str | None,
    endpoint_url: str | None,
    immutable: bool,
    read_only: bool,
    allow_other: bool,
    uid: str | None,
    gid: str | None,
    umask: str | None,
    show_control: bool,
    options: tuple[str, ...],
) -> int:
    """Show the dataset NAME, or NAME@VERSION, as files at MOUNTPOINT, until it is unmounted.

    A URI is attached first. Unmount it by `forebay umount MOUNTPOINT`, or end this program by a signal.
    """
    from forebay.fuse import MountOptions, serve

    wanted = MountOptions()
    flags = {"ro": read_only, "allow_other": allow_other, "show_control": show_control}
    for text in (*options, *_as_text(flags, {"uid": uid, "gid": gid, "umask": umask})):
        wanted = wanted.with_text(text)
    ending = _Ending()
    with asked_to_end_if_interrupted(ending.ask), session.open_cache(make="://" in what) as cache:
        label = what
        if "://" in what:
            label = _attached(cache, what, name, endpoint_url, immutable)
        elif name or endpoint_url or immutable:
            raise click.UsageError("--name, --endpoint-url and --immutable go with a URI")

        def told(served: Mount) -> None:
            ending.begin(served)
            _tell(session, cache, served, wanted)

        serve(cache, label, mountpoint, wanted, told)
    return 0


class _Ending:
    """A wish to end the mount, which may come before there is one."""

    def __init__(self) -> None:
        self._lock: Final = threading.Lock()
        self._mount: Mount | None = None
        self._is_asked = False

    def begin(self, mount: Mount) -> None:
        """Take the mount that is to end by the wish."""
        with self._lock:
            self._mount = mount
            if self._is_asked:
                mount.stop()

    def ask(self) -> None:
        """Wish for the end."""
        with self._lock:
            self._is_asked = True
            if self._mount is not None:
                self._mount.stop()


def _as_text(flags: Mapping[str, bool], values: Mapping[str, str | None]) -> list[str]:
    """Return what was said by options of their own as mount options."""
    texts = [key for key, is_set in flags.items() if is_set]
    return texts + [f"{key}={value}" for key, value in values.items() if value is not None]


def _attached(cache: Cache, uri: str, name: str | None, endpoint_url: str | None, immutable: bool) -> str:
    """Attach a URI, unless it is, and return the dataset's name."""
    for record in cache.datasets():
        if record.uri == uri.rstrip("/") and name in (None, record.name):
            return record.name
    settings: dict[str, Any] = {} if endpoint_url is None else {"endpoint_url": endpoint_url}
    if immutable:
        settings["max_age"] = None
    derived = _NOT_IN_NAMES.sub("-", uri.rstrip("/").rpartition("/")[2]).strip("-._")
    return cache.attach(name or derived, uri, **settings).name


def _tell(session: Session, cache: Cache, served: Mount, options: MountOptions) -> None:
    """Say what is mounted where."""
    if session.as_json:
        told = {
            "dataset": served.label,
            "uri": served.uri,
            "mountpoint": served.mountpoint,
            "immutable": served.is_immutable,
            "cache_dir": cache.path,
            "options": replace(options, read_only=served.read_only).to_json(),
        }
        # In one line, for whoever waits for it: the program goes on.
        click.echo(json.dumps(told))
    else:
        kinds = ["read-only"] * served.read_only + ["immutable"] * served.is_immutable
        click.echo(
            f"mounted {served.label} ({printable(served.uri)}) on {printable(served.mountpoint)}"
            f"{': ' if kinds else ''}{', '.join(kinds)}"
        )
    sys.stdout.flush()


@click.command()
@common_options
@click.argument("mountpoint", type=click.Path())
@click.option("--lazy", is_flag=True, help="Also while it is in use: it ends when its last users have.")
@pass_session
def umount(session: Session, mountpoint: str, lazy: bool) -> None:
    """Unmount what is mounted at MOUNTPOINT; the program that served it ends by that."""
    from forebay.fuse import unmount

    unmount(mountpoint, lazy=lazy)
    if session.as_json:
        echo_json({"unmounted": mountpoint})
    else:
        click.echo(f"unmounted {printable(mountpoint)}")
