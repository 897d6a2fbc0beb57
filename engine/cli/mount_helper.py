"""``mount.forebay``: what mount(8), and so fstab, calls to mount a dataset.

It stands in /sbin under that name. The dataset is what fstab calls the device; cache_dir=DIR and config=FILE
among the options say which cache, and all else is for ``forebay mount``.
"""

from __future__ import annotations

import sys
from typing import Final

import click

from forebay.cli.app import DONE, WRONG_USAGE, run
from forebay.errors import ConfigError

_OF_CACHE: Final = {"cache_dir": "--cache-dir", "config": "--config"}
_FLAGS: Final = ("supervise",)

# What mount(8) says of helpers' exit codes.
_WRONG_INVOCATION: Final = 1
_MOUNT_FAILED: Final = 32


def main() -> None:
    """Run the helper as a program of its own, with the exit codes of mount(8)."""
    try:
        code = mount_helper.main(prog_name="mount.forebay", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = WRONG_USAGE
    sys.exit({DONE: DONE, WRONG_USAGE: _WRONG_INVOCATION}.get(code or DONE, _MOUNT_FAILED))


@click.command()
@click.argument("spec")
@click.argument("mountpoint")
@click.option("-o", "options", multiple=True, metavar="OPTION[,...]", help="As they stand in fstab.")
@click.option("-s", "sloppy", is_flag=True, help="Pass over options that are unknown.")
@click.option("-f", "fake", is_flag=True, help="Do nothing.")
@click.option("-v", "verbose", is_flag=True, help="Say more.")
@click.option("-n", "no_mtab", is_flag=True, help="Ignored: there is no mtab.")
@click.option("-t", "kind", help="Ignored: it is forebay.")
def mount_helper(
    spec: str, mountpoint: str, options: tuple[str, ...], sloppy: bool, fake: bool, verbose: bool, **_: object
) -> int:
    """Mount the dataset SPEC at MOUNTPOINT, in the background; for mount(8)."""
    words = [word for text in options for word in text.split(",") if word]
    if fake:
        return DONE
    command = arguments(spec, mountpoint, words, sloppy=sloppy)
    return run([*["-v"] * verbose, *command])


def arguments(spec: str, mountpoint: str, words: list[str], *, sloppy: bool = False) -> list[str]:
    """Return the command line of forebay for what mount(8) was given."""
    of_cache, flags, rest = [], [], []
    for word in words:
        key, _, value = word.partition("=")
        if key in _OF_CACHE:
            of_cache += [_OF_CACHE[key], value]
        elif word in _FLAGS:
            flags.append(f"--{word}")
        elif not sloppy or _is_known(word):
            rest.append(word)
    return [*of_cache, "mount", "--background", *flags, "-o", ",".join(rest), "--", spec, mountpoint]


def _is_known(word: str) -> bool:
    from forebay.fuse import MountOptions

    try:
        MountOptions().with_text(word)
    except ConfigError:
        return False
    return True
