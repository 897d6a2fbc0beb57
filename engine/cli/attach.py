"""``attach``, ``detach`` and ``datasets``."""

from __future__ import annotations

import click

from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table


@click.command()
@common_options
@click.argument("name")
@click.argument("uri")
@click.option("--endpoint-url", metavar="URL", help="An S3 server other than AWS.")
@click.option("--region", help="The region of the bucket.")
@click.option("--profile", help="A profile of the AWS configuration, for credentials.")
@click.option("--anonymous", is_flag=True, help="Send unsigned requests.")
@click.option("--immutable", is_flag=True, help="What was seen once never changes.")
@click.option(
    "--max-age", type=float, metavar="S", help="Seconds that an answer holds; 0: always check. [60]"
)
@click.option("--retention", default="epoch", show_default=True, metavar="R", help="epoch, s3fifo or lru.")
@pass_session
def attach(
    session: Session,
    name: str,
    uri: str,
    endpoint_url: str | None,
    region: str | None,
    profile: str | None,
    anonymous: bool,
    immutable: bool,
    max_age: float | None,
    retention: str,
) -> None:
    """Attach URI (s3://bucket/prefix or file:///folder) as the dataset NAME, making the cache if it is new.

    Credentials are never given here: they come from the environment, a profile or the machine's role.
    """
    if immutable and max_age is not None:
        raise click.UsageError("--immutable and --max-age exclude each other")
    options = {"region": region, "profile": profile, "anonymous": anonymous or None}
    with session.open_cache(make=True) as cache:
        dataset = cache.attach(
            name,
            uri,
            endpoint_url=endpoint_url,
            max_age=None if immutable else 60.0 if max_age is None else max_age,
            retention=retention,
            **{option: value for option, value in options.items() if value is not None},
        )
    if session.as_json:
        echo_json(dataset.to_json())
    else:
        click.echo(f"attached {dataset.name}: {dataset.uri}")


@click.command()
@common_options
@click.argument("name")
@pass_session
def detach(session: Session, name: str) -> None:
    """Detach the dataset NAME and free what is cached of it. The under storage is not touched."""
    with session.open_cache() as cache:
        cache.detach(name)
    if not session.as_json:
        click.echo(f"detached {name}")


@click.command()
@common_options
@pass_session
def datasets(session: Session) -> None:
    """List the attached datasets."""
    with session.open_cache() as cache:
        found = cache.datasets()
    if session.as_json:
        echo_json([dataset.to_json() for dataset in found])
        return
    echo_table(
        ("dataset", "uri", "max age", "retention"),
        [(dataset.name, dataset.uri, _age_text(dataset.max_age), dataset.retention) for dataset in found],
    )


def _age_text(max_age: float | None) -> str:
    return "immutable" if max_age is None else f"{max_age:g} s"
