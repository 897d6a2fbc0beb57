"""kill -9 at random moments under a mixed load, and everything checked after each.

Three processes stay: a reader, a writer and a deleter. A fourth, the victim, puts, replaces, deletes, pins
and reads, and maintains; it is killed and replaced. Now and then all are killed together, so that the next
one recovers alone. Whatever happened, the blocks of the dataset that is kept must be there.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from multiprocessing.connection import Connection
from typing import Final

from forebay.errors import StoreBusy
from forebay.store import BlockStore
from tests.faults._child import Child, run
from tests.faults._place import Place, assert_account, settle
from tests.faults._points import CHURNED
from tests.faults._world import (
    Block,
    Operation,
    Progress,
    World,
    fetch_alone,
    get,
    maintain,
    perform_all,
    put,
    retain,
)

KEPT: Final = range(800)  # of the dataset that is kept, at the start
ADDED: Final = range(1000, 1600)  # of the same, put, replaced and deleted by the victims
CHURN: Final = range(10_000, 13_000)  # of the dataset that evicts
OPERATIONS: Final = 3000
MOMENT_S: Final = 0.04
WORKING_SHARE: Final = 0.8  # of the victims; the others may die while they open
TOGETHER_EVERY: Final = 10

Act = Callable[[BlockStore, random.Random], None]


def churn_block(rng: random.Random, version: int) -> Block:
    """Return some block of the dataset that evicts."""
    return Block(rng.choice(CHURN), rng.randrange(100, 12_000), version, CHURNED)


def put_if_room(block: Block) -> Operation:
    """Return a put into the dataset that is kept, which may find no room."""
    return Operation(
        lambda store: store.put(block.key, block.data),
        lambda world: world.put(block),
        lambda world: world.may_put(block),
        block,
    )


def delete_if_there(block: Block) -> Operation:
    """Return a deletion of a block that may be there or not; refused beside one without a processor."""

    def perform(store: BlockStore) -> bool:
        try:
            store.delete(block.key)
        except StoreBusy:
            return False
        return True

    return Operation(
        perform,
        lambda world: world.delete(block),
        lambda world: world.may_delete(block),
        block,
    )


def pin_for_a_while(block: Block) -> Operation:
    """Return a pin that is taken back."""

    def perform(store: BlockStore) -> None:
        with suppress(StoreBusy):
            if store.pin(block.key):
                store.unpin(block.key)

    return Operation(perform, block=block)


def mixed_load(seed: int, version: int) -> Iterator[Operation]:
    """Yield what one victim does; the same for the same seed."""
    rng = random.Random(seed)

    def one() -> Operation:
        added = Block(rng.choice(ADDED), rng.randrange(100, 6000), version)
        kinds: list[Callable[[], Operation]] = [
            lambda: put_if_room(added),
            lambda: delete_if_there(added),
            lambda: pin_for_a_while(Block(rng.choice(KEPT))),
            lambda: get(Block(rng.choice(KEPT))),
            lambda: get(churn_block(rng, version)),
            lambda: put(churn_block(rng, version), lasting=False),
            lambda: fetch_alone(Block(20_000 + rng.randrange(100))),
            maintain,
        ]
        return rng.choices(kinds, [20, 5, 5, 20, 10, 38, 1, 1])[0]()

    yield retain(CHURNED, "s3fifo")
    for _ in range(OPERATIONS):
        yield one()


def victim(link: Connection, place: Place, operations: Iterator[Operation], progress: Progress) -> None:
    """Body: work, with a maintainer's thread, until killed."""
    with place.open(maintainer=True) as store:
        link.send("open")
        perform_all(store, operations, progress)
        link.recv()


def read(store: BlockStore, rng: random.Random) -> None:
    """Read some block; its bytes must be those of one of its versions."""
    number = rng.choice(rng.choice((KEPT, ADDED, CHURN)))
    view = store.get(Block(number).key)
    if view is not None:
        with view:
            assert Block.is_some_version(number, bytes(view))


def write(store: BlockStore, rng: random.Random) -> None:
    """Put some block of the dataset that evicts."""
    block = churn_block(rng, rng.randrange(1 << 30))
    store.put(block.key, block.data, dataset=CHURNED)


def remove(store: BlockStore, rng: random.Random) -> None:
    """Delete some block of the dataset that evicts, now and then."""
    if rng.random() < 0.05:
        with suppress(StoreBusy):
            store.delete(churn_block(rng, 0).key)
    else:
        read(store, rng)


def verify(place: Place, store: BlockStore, world: World, processes: int) -> None:
    """Check everything while nobody is at work."""
    settle(store)
    present = world.verify(store)
    for number in CHURN:
        view = store.get(Block(number).key)
        if view is not None:
            with view:
                data = bytes(view)
            assert Block.is_some_version(number, data), f"block {number} has wrong bytes"
            present[Block(number).key] = len(data)
    assert_account(place, store, present, processes=processes)


def stay(link: Connection, place: Place, act: Act, seed: int) -> None:
    """Body: work until asked to pause; check when asked to."""
    rng = random.Random(seed)
    with place.open() as store:
        store.set_retention(CHURNED, "s3fifo")
        link.send("open")
        while True:
            if not link.poll():
                act(store, rng)
                continue
            command = link.recv()
            if command == "end":
                return
            if isinstance(command, World):
                verify(place, store, command, len(STAYING))
            link.send("ready")
            assert link.recv() == "go"


STAYING: Final[list[Act]] = [read, write, remove]


@contextmanager
def staying(place: Place, seed: int) -> Iterator[list[Child]]:
    """Keep the three processes at work."""
    with ExitStack() as stack:
        processes = [stack.enter_context(Child(stay, place, act, seed + n)) for n, act in enumerate(STAYING)]
        assert [process.receive() for process in processes] == ["open"] * len(STAYING)
        yield processes


def learn(world: World, operations: Iterator[Operation], progress: Progress) -> None:
    """Take what a victim did into the model; blocks that come and go are not its business."""
    for index, operation in enumerate(islice(operations, progress.count + 1)):
        if operation.block is not None and operation.block.dataset == CHURNED:
            continue
        if index == progress.count:
            operation.cut_short(world)
        elif not progress.was_refused(index):
            operation.done(world)


def pause_and_check(processes: list[Child], world: World) -> None:
    """Let all pause, one of them check, and all go on."""
    reader, *others = processes
    assert [process.ask("pause") for process in others] == ["ready"] * len(others)
    assert reader.ask(world) == "ready"
    for process in processes:
        process.send("go")


def one_moment(place: Place, world: World, rng: random.Random, moment: int, together: list[Child]) -> None:
    """Let a victim work and kill it at a random moment, together with others."""
    seed, progress = rng.randrange(1 << 30), Progress()
    with Child(victim, place, mixed_load(seed, moment), progress) as process:
        if rng.random() < WORKING_SHARE:
            assert process.receive() == "open"
        time.sleep(rng.uniform(0.0, MOMENT_S))
        for struck in (process, *together):
            struck.kill()
        for struck in (process, *together):
            assert struck.exit_code() == -signal.SIGKILL
    learn(world, mixed_load(seed, moment), progress)


def kill_at_random_moments(place: Place, moments: int, seed: int) -> None:
    """Kill a victim at so many moments, everything at some; check after each."""
    rng, world = random.Random(seed), World()
    prepared = [put(Block(number)) for number in KEPT]

    def prepare(link: Connection) -> None:
        with place.open() as store:
            perform_all(store, prepared)

    run(prepare)
    for operation in prepared:
        operation.done(world)
    for first in range(0, moments, TOGETHER_EVERY):
        with staying(place, rng.randrange(1 << 30)) as processes:
            pause_and_check(processes, world)
            for moment in range(first, min(first + TOGETHER_EVERY, moments) - 1):
                one_moment(place, world, rng, moment, [])
                pause_and_check(processes, world)
            one_moment(place, world, rng, first + TOGETHER_EVERY, processes)
    with staying(place, 0) as processes:
        pause_and_check(processes, world)
        for process in processes:
            process.send("end")
            process.result()
