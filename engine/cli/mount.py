"""``mount`` and ``umount``."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from forebay.cli.app import DONE
from forebay.cli.background import own_command
from forebay.cli.interrupt import asked_to_end_if_interrupted
from forebay.cli.kinds import SIZE
from forebay.cli.mount_process import serve_in_background, serve_supervised
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, printable

if TYPE_CHECKING:
    from forebay.cache import Cache
    from forebay.fuse import Mount, MountOptions

_log: Final = logging.getLogger(__name__)

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
    "--read-ahead",
    type=SIZE,
    default="1MiB",
    show_default=True,
    metavar="SIZE",
    help="How far the kernel reads ahead of who reads a file in order.",
)
@click.option(
    "-o", "options", metavar="OPTION[,...]", multiple=True, help="Mount options, as they stand in fstab."
)
@click.option("--background", is_flag=True, help="Return when it can be used; it goes on as another process.")
@click.option("--supervise", is_flag=True, help="If the process that serves it dies, mount it anew.")
@click.option("--ready-fd", type=int, metavar="N", help="Say 'ready' on this descriptor when it can be used.")
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
    read_ahead: int,
    options: tuple[str, ...],
    background: bool,
    supervise: bool,
    ready_fd: int | None,
) -> int:
    """Show the dataset NAME, or NAME@VERSION, as files at MOUNTPOINT, until it is unmounted.

    A URI is attached first. Unmount it by `forebay umount MOUNTPOINT`, or end this program by a signal.
    """
    from forebay.fuse import MountOptions

    flags = {"ro": read_only, "allow_other": allow_other, "show_control": show_control}
    texts = [*options, *_as_text(flags, {"uid": uid, "gid": gid, "umask": umask})]
    wanted = MountOptions()
    for text in texts:
        wanted = wanted.with_text(text)
    if "://" not in what and (name or endpoint_url or immutable):
        raise click.UsageError("--name, --endpoint-url and --immutable go with a URI")
    ending = _Ending()
    with asked_to_end_if_interrupted(ending.ask), session.open_cache(make="://" in what) as cache:
        label = _attached(cache, what, name, endpoint_url, immutable) if "://" in what else what
        if not (background or supervise):
            _serve(session, cache, label, mountpoint, wanted, read_ahead, ready_fd, ending)
            return DONE
        # Those that are not there are told of at once, whatever becomes of other processes.
        cache.nodes(label)
        cache_dir = cache.path
    place = os.path.abspath(mountpoint)

    def command(ready_fd: int, *more: str) -> list[str]:
        own = [*own_command(session, cache_dir), "mount", "--ready-fd", str(ready_fd), *more]
        return [*own, "--read-ahead", str(read_ahead), "-o", ",".join(texts), "--", label, place]

    more = ["--supervise"] * (background and supervise) + ["--json"] * session.as_json
    if background:
        return serve_in_background(session, lambda fd: command(fd, *more), cache_dir, place)
    return serve_supervised(lambda fd: command(fd, *more), place, ready_fd)


def _serve(
    session: Session,
    cache: Cache,
    label: str,
    mountpoint: str,
    options: MountOptions,
    read_ahead: int,
    ready_fd: int | None,
    ending: _Ending,
) -> None:
    """Serve a mount in this process until its end."""
    from forebay.fuse import serve
    from forebay.fuse.readiness import tell_ready

    telling: list[threading.Thread] = []
    with ExitStack() as stack:

        def tell(served: Mount) -> None:
            _read_ahead(served, read_ahead)
            _keep_record(stack, cache, served)
            # Whoever started it may have gone.
            with suppress(BrokenPipeError):
                _tell(session, cache, served, options)
            tell_ready(ready_fd)

        def told(served: Mount) -> None:
            ending.begin(served)
            # It asks the mount, which this thread is about to serve. Nobody hears of the mount before that is
            # over, for meanwhile it is in use and cannot be unmounted.
            telling.append(threading.Thread(target=tell, args=(served,), name="forebay-mount-tell"))
            telling[0].start()

        try:
            serve(cache, label, mountpoint, options, told)
        finally:
            for thread in telling:
                thread.join()


def _read_ahead(served: Mount, size_bytes: int) -> None:
    """Have the kernel read ahead as far as asked, or say that it does not.

    What is set before the kernel has its first answer is overwritten by that; so one is asked for.
    """
    from forebay.fuse.read_ahead import set_read_ahead

    try:
        os.stat(served.mountpoint)
        set_read_ahead(served.mountpoint, size_bytes)
    except OSError as error:
        _log.warning(
            "%s: the kernel's read-ahead stays at 128 KiB, and large files are read more slowly (%s)",
            served.mountpoint,
            error,
        )


def _keep_record(records: ExitStack, cache: Cache, served: Mount) -> None:
    """Tell `forebay status` and `top` of the mount, if the cache directory can be written."""
    from forebay.fuse.records import MountRecord, reporting

    about = {
        "mountpoint": served.mountpoint,
        "dataset": served.label,
        "uri": served.uri,
        "read_only": served.read_only,
        "immutable": served.is_immutable,
        "pid": os.getpid(),
        "since": time.time(),
    }
    try:
        record = records.enter_context(MountRecord(cache.path, about))
    except OSError as error:
        _log.warning("%s: it is not told of in `forebay status`: %s", served.mountpoint, error)
    else:
        records.enter_context(reporting(record, served.operations))


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
