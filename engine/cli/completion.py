"""``completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from forebay.cli.session import common_options

VARIABLE = "_FOREBAY_COMPLETE"


@click.command()
@common_options
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the script that lets SHELL complete commands, options, datasets and paths.

    Paths are completed from what the cache knows already; the under storage is not asked.
    """
    from forebay.cli.app import app

    made_by = get_completion_class(shell)
    assert made_by is not None
    click.echo(made_by(app, {}, "forebay", VARIABLE).source())
