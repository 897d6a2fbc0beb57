"""WebHDFS gateways of real members: each sends a reader to who answers for the bytes, also after a death."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from forebay.api.webhdfs.query import PREFIX
from tests._gateway import Answer, Served
from tests.cluster._members import DATASET, PATIENT, Serve, ServedMember
from tests.cluster._site import OBJECTS, Site, running, wait_until

MEMBERS = 3
GATEWAY = ("--webhdfs", "127.0.0.1:0")
WITH_GATEWAY = Serve(options=GATEWAY)
# An owner that stands still for a moment is passed over: here it is to be named all the same.
PATIENT_WITH_GATEWAY = replace(PATIENT, options=GATEWAY)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(tmp_path_factory.mktemp("group"), MEMBERS, PATIENT_WITH_GATEWAY) as site:
        assert len({each.gateway for each in site.members.all} - {None}) == MEMBERS
        yield site


def ask(authority: str | None, path_and_query: str) -> Answer:
    """Send a GET to a gateway; a redirect is not followed."""
    assert authority is not None
    return Served(int(authority.rpartition(":")[2])).get(path_and_query)


def ask_to_open(member: ServedMember, name: str) -> Answer:
    return ask(member.gateway, f"/{DATASET}/{name}?op=OPEN")


def followed(answer: Answer) -> tuple[str, Answer]:
    """Go where a redirect leads; return which gateway that was, and what it answered."""
    assert answer.status == 307
    location = urlsplit(answer.headers["location"])
    assert location.scheme == "http"
    return location.netloc, ask(
        location.netloc, f"{location.path.removeprefix(PREFIX.decode())}?{location.query}"
    )


def test_a_file_is_opened_at_the_gateway_of_its_owner(site: Site) -> None:
    owners = set()
    for name, data in OBJECTS.items():
        owner = site.owner_of(name)
        owners.add(owner.id)
        for member in site.members.all:
            answer = ask_to_open(member, name)
            if member is not owner:
                authority, answer = followed(answer)
                assert authority == owner.gateway, name
            assert answer.status == 200, (name, answer.body)
            assert answer.body == data, name
    assert len(owners) == MEMBERS


def test_who_was_sent_to_another_than_the_owner_is_answered_there(site: Site) -> None:
    for name in list(OBJECTS)[:5]:
        for member in site.members.all:
            answer = ask(member.gateway, f"/{DATASET}/{name}?op=OPEN&data=true")
            assert (answer.status, answer.body) == (200, OBJECTS[name])


def test_who_has_seen_the_owners_gateway_fail_is_not_sent_there_again(site: Site) -> None:
    for name, data in list(OBJECTS.items())[:5]:
        owner = site.owner_of(name)
        for member in site.members.all:
            path = f"/{DATASET}/{name}?op=OPEN&excludedatanodes={owner.gateway}"
            answer = ask(member.gateway, path)
            assert (answer.status, answer.body) == (200, data)


def test_block_locations_name_the_owner_at_every_gateway(site: Site) -> None:
    for name, data in OBJECTS.items():
        for member in site.members.all:
            answer = ask(member.gateway, f"/{DATASET}/{name}?op=GETFILEBLOCKLOCATIONS")
            (location,) = answer.json["BlockLocations"]["BlockLocation"]
            assert location["names"] == [site.owner_of(name).address]
            assert (location["offset"], location["length"]) == (0, len(data))


def test_files_of_a_killed_member_are_opened_at_the_others(tmp_path: Path) -> None:
    with running(tmp_path, MEMBERS, WITH_GATEWAY) as site:
        victim = site.owner_of("o00")
        rest = [each for each in site.members.all if each is not victim]
        orphans = [name for name in OBJECTS if site.owner_of(name) is victim]
        victim.signal(signal.SIGKILL)
        for name in orphans:
            for member in rest:
                wait_until(lambda member=member, name=name: is_opened(member, name, rest))  # type: ignore[misc]


def is_opened(member: ServedMember, name: str, alive: Sequence[ServedMember]) -> bool:
    """Open a file as a client does that asks again where a redirect leads to a gateway that is gone."""
    answer = ask_to_open(member, name)
    if answer.status == 307:
        if urlsplit(answer.headers["location"]).netloc not in {each.gateway for each in alive}:
            return False
        _, answer = followed(answer)
    assert (answer.status, answer.body) == (200, OBJECTS[name])
    return True
