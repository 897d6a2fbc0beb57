"""``manifest`` and what is below it: versions of a dataset."""

from __future__ import annotations

import sys
from typing import Final

import click

from forebay.cache import ManifestStatus
from forebay.cli.kinds import CACHE_PATH, DATASET
from forebay.cli.load import see_through
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, printable, size_text, time_text
from forebay.clock import NS_PER_S

_STREAM: Final = "-"


@click.group()
@common_options
def manifest() -> None:
    """Make, switch and carry versions of a dataset.

    A manifest lists objects with their sizes and versions, and never changes. DATASET@VERSION in a path
    means that version of the dataset.
    """


@manifest.command()
@common_options
@click.argument("target", type=CACHE_PATH)
@click.argument("version")
@click.option(
    "--files-from",
    metavar="FILE",
    help="List what this list names, a line each, relative to TARGET; - for standard input, or a URL.",
)
@click.option("--glob", metavar="G", help="List what matches, relative to TARGET; ** is any depth.")
@click.option("--use", is_flag=True, help="Put it in use when it is complete.")
@pass_session
def create(
    session: Session, target: str, version: str, files_from: str | None, glob: str | None, use: bool
) -> int:
    """List TARGET, a dataset or a path in one, as the manifest VERSION. No data is fetched.

    With `forebay load --manifest` it is fetched as well.
    """
    with session.open_cache() as cache:
        job = cache.load(
            target,
            files=sys.stdin.buffer if files_from == _STREAM else files_from,
            glob=glob,
            metadata_only=True,
            manifest=version,
            use_manifest=use,
        )
        return see_through(session, job)


@manifest.command("list")
@common_options
@click.argument("name", metavar="NAME", type=DATASET)
@pass_session
def list_(session: Session, name: str) -> None:
    """List the manifests of the dataset NAME, the oldest first."""
    with session.open_cache() as cache:
        found = cache.manifests(name)
    if session.as_json:
        echo_json([each.to_json() for each in found])
        return
    echo_table(("manifest", "use", "objects", "bytes", "made", "from"), [_row(each) for each in found])


@manifest.command()
@common_options
@click.argument("name", metavar="NAME", type=DATASET)
@click.argument("version", required=False)
@click.option("--none", "is_none", is_flag=True, help="Put none in use.")
@pass_session
def use(session: Session, name: str, version: str | None, is_none: bool) -> None:
    """Show VERSION of the dataset NAME, and nothing else, from now on and for everybody."""
    if is_none == (version is not None):
        raise click.UsageError("name a VERSION or give --none")
    with session.open_cache() as cache:
        cache.use_manifest(name, version)
    _tell(session, name, version)


@manifest.command()
@common_options
@click.argument("name", metavar="NAME", type=DATASET)
@pass_session
def rollback(session: Session, name: str) -> None:
    """Show the version of the dataset NAME that was in use before this one."""
    with session.open_cache() as cache:
        version = cache.rollback(name)
    _tell(session, name, version)


@manifest.command()
@common_options
@click.argument("name", metavar="NAME", type=DATASET)
@click.argument("version")
@pass_session
def delete(session: Session, name: str, version: str) -> None:
    """Delete VERSION of the dataset NAME, and drop what is cached for it alone. One in use is not deleted."""
    with session.open_cache() as cache:
        cache.delete_manifest(name, version)
    if session.as_json:
        echo_json({"dataset": name, "deleted": version})
    else:
        click.echo(f"deleted {name}@{version}")


@manifest.command()
@common_options
@click.argument("name", metavar="NAME", type=DATASET)
@click.argument("version")
@click.argument("file", default=_STREAM)
@pass_session
def export(session: Session, name: str, version: str, file: str) -> None:
    """Write VERSION of the dataset NAME to FILE, or standard output, as JSON with an object a line."""
    with session.open_cache() as cache:
        if file == _STREAM:
            cache.export_manifest(name, version, sys.stdout.buffer)
            return
        count = cache.export_manifest(name, version, file)
    if session.as_json:
        echo_json({"dataset": name, "version": version, "file": file, "objects": count})
    else:
        click.echo(f"wrote {count} objects of {name}@{version} to {printable(file)}")


@manifest.command("import")
@common_options
@click.argument("name", metavar="NAME", type=DATASET)
@click.argument("version")
@click.argument("file")
@click.option("--ordered", is_flag=True, help="Its lines are in the order of access, for `load --order`.")
@click.option("--use", is_flag=True, help="Put it in use when it is complete.")
@pass_session
def import_(session: Session, name: str, version: str, file: str, ordered: bool, use: bool) -> None:
    """Make VERSION of the dataset NAME of FILE (- for standard input), in the form that export writes.

    Nothing is asked of the under storage.
    """
    with session.open_cache() as cache:
        made = cache.import_manifest(
            name, version, sys.stdin.buffer if file == _STREAM else file, ordered=ordered, use=use
        )
    if session.as_json:
        echo_json(made.to_json())
    else:
        in_use = ", in use" if made.is_in_use else ""
        click.echo(f"{name}@{version}: {made.objects} objects, {size_text(made.bytes)}{in_use}")


def _tell(session: Session, name: str, version: str | None) -> None:
    if session.as_json:
        echo_json({"dataset": name, "manifest": version})
    elif version is None:
        click.echo(f"{name}: no manifest is in use")
    else:
        click.echo(f"{name}: {version} is in use")


def _row(status: ManifestStatus) -> tuple[str, ...]:
    use = "in use" if status.is_in_use else "before" if status.is_before else "-"
    source = f"{status.source}, ordered" if status.is_ordered else status.source
    made = time_text(int(status.created * NS_PER_S))
    return status.version, use, str(status.objects), size_text(status.bytes), made, source
