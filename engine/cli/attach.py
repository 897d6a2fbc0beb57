"""``attach``, ``detach``, ``datasets`` and ``quota``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import click

from forebay.cache.attach import RETENTIONS, WRITE_MODES, dataset_record
from forebay.cli.kinds import DATASET, SIZE
from forebay.cli.session import Session, common_options, pass_session
from forebay.cli.text import echo_json, echo_table, printable, size_text
from forebay.ufs import open_storage

# Parameters of Cache.attach that are no options of an under storage.
_SETTINGS: Final = (
    "name",
    "uri",
    "max_age",
    "negative_ttl",
    "retention",
    "manifest_only",
    "writable",
    "write_mode",
    "quota",
    "local_copy",
)
_NO_QUOTA: Final = "none"


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
@click.option(
    "--negative-ttl", type=float, metavar="S", help="Seconds for which an absent path stays absent. [0]"
)
@click.option("--retention", metavar="R", help="epoch, s3fifo or lru. [epoch]")
@click.option("--manifest-only", is_flag=True, help="Show what the manifest in use lists, and nothing else.")
@click.option("--writable", is_flag=True, help="Let it be changed through the cache.")
@click.option("--write-mode", metavar="MODE", help="through or cache_through. [through]")
@click.option("--quota", type=SIZE, help="Cache no more of it than that. [no limit]")
@click.option(
    "--local-copy",
    metavar="COPY",
    help="Keep here what peers answer for: never, always or if_room. [by the role]",
)
@click.option(
    "--option",
    "pairs",
    metavar="KEY=VALUE",
    multiple=True,
    help="An option of the under storage; may be given several times.",
)
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
    negative_ttl: float | None,
    retention: str | None,
    manifest_only: bool,
    writable: bool,
    write_mode: str | None,
    quota: int | None,
    local_copy: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Attach URI (s3://bucket/prefix or file:///folder) as the dataset NAME, making the cache if it is new.

    Attaching it again changes the settings. Credentials are never given here: they come from the environment,
    a profile or the machine's role.
    """
    if immutable and max_age is not None:
        raise click.UsageError("--immutable and --max-age exclude each other")
    options = _options(pairs) | _given(
        endpoint_url=endpoint_url, region=region, profile=profile, anonymous=anonymous or None
    )
    settings = _given(
        max_age=max_age,
        negative_ttl=negative_ttl,
        retention=retention,
        manifest_only=manifest_only or None,
        writable=writable or None,
        write_mode=write_mode,
        quota=quota,
        local_copy=local_copy,
    )
    if immutable:
        settings["max_age"] = None
    _check(name, uri, settings, options)
    with session.open_cache(make=True) as cache:
        dataset = cache.attach(name, uri, **settings, **options)
    if session.as_json:
        echo_json(dataset.to_json())
    else:
        click.echo(f"attached {dataset.name}: {printable(dataset.uri)}")


@click.command()
@common_options
@click.argument("name", type=DATASET)
@pass_session
def detach(session: Session, name: str) -> None:
    """Detach the dataset NAME and free what is cached of it. The under storage is not touched."""
    with session.open_cache() as cache:
        cache.detach(name)
    if session.as_json:
        echo_json({"detached": name})
    else:
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
        ("dataset", "uri", "max age", "retention", "quota"),
        [
            (each.name, each.uri, _age_text(each.max_age), each.retention, _quota_text(each.quota_bytes))
            for each in found
        ],
    )


@click.command()
@common_options
@click.argument("name", type=DATASET)
@click.argument("size", metavar="SIZE|none")
@pass_session
def quota(session: Session, name: str, size: str) -> None:
    """Cache no more of the dataset NAME than SIZE ("none": no limit).

    Over it nothing of the dataset is admitted, and reads go on. What is cached already stays.
    """
    with session.open_cache() as cache:
        dataset = cache.set_quota(name, None if size == _NO_QUOTA else size)
    if session.as_json:
        echo_json(dataset.to_json())
    else:
        click.echo(f"quota of {dataset.name}: {_quota_text(dataset.quota_bytes)}")


def _given(**values: Any) -> dict[str, Any]:
    """Return what was given on the command line."""
    return {key: value for key, value in values.items() if value is not None}


def _check(name: str, uri: str, settings: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Refuse what is wrong usage before a cache is made for it. Raises: ConfigError."""
    any_settings = {
        "max_age": None,
        "negative_ttl": 0.0,
        "retention": RETENTIONS[0],
        "writable": False,
        "write_mode": WRITE_MODES[0],
    }
    record = dataset_record(name, uri, **{**any_settings, **settings}, options=options)
    open_storage(record.uri, record.options).close()


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Read KEY=VALUE; a value that is JSON is what it says (5, true, {...}), any other is text."""
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not key or not equals or key in _SETTINGS:
            raise click.BadParameter("write KEY=VALUE, an option of the under storage", param_hint="--option")
        try:
            options[key] = json.loads(text)
        except ValueError:
            options[key] = text
    return options


def _quota_text(quota_bytes: int | None) -> str:
    return _NO_QUOTA if quota_bytes is None else size_text(quota_bytes)


def _age_text(max_age: float | None) -> str:
    return "immutable" if max_age is None else f"{max_age:g} s"
