"""Views: the buffer protocol, what they hold and when they let go."""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
from typing import Any

import numpy
import pytest

from forebay.config import KIB, MIB
from forebay.store import BlockStore, View
from tests.unit._stores import Stores, counting, leases, maintain, noise

DATA = noise(100_000)


@pytest.fixture(params=["zero-copy", "private", "wrapped"])
def view(request: pytest.FixtureRequest, stores: Stores) -> View:
    """The three kinds of views, which differ in nothing that can be seen but `zero_copy`."""
    if request.param == "wrapped":
        return View.wrap(DATA)
    store = stores.open(stores.tier(medium="MEM" if request.param == "zero-copy" else "SSD"))
    store.put(b"k", DATA)
    view = store.get(b"k")
    assert view is not None
    assert view.zero_copy == (request.param == "zero-copy")
    return view


@pytest.fixture
def store(stores: Stores) -> BlockStore:
    store = stores.open()
    store.put(b"k", DATA)
    return store


def held(store: BlockStore) -> View:
    view = store.get(b"k")
    assert view is not None
    return view


def array_over(buffer: Any) -> numpy.ndarray[Any, Any]:
    """numpy's own types know of no other buffers than the built-in ones."""
    return numpy.frombuffer(buffer, dtype=numpy.uint8)


def test_length_bytes_and_slices(view: View) -> None:
    assert len(view) == 100_000
    assert bytes(view) == DATA
    assert isinstance(view[10:20], memoryview)
    assert view[10:20] == DATA[10:20]
    assert view[-3:] == DATA[-3:]
    assert view[0] == DATA[0]
    assert view[-1] == DATA[-1]
    assert view[200_000:].tobytes() == b""
    assert view[::-1].tobytes() == DATA[::-1]
    with pytest.raises(IndexError):
        view[100_000]
    with pytest.raises(TypeError):
        view["0"]  # type: ignore[call-overload]


def test_the_buffer_is_read_only_bytes(view: View) -> None:
    buffer = memoryview(view)
    assert (buffer.readonly, buffer.format, buffer.ndim, buffer.nbytes) == (True, "B", 1, 100_000)
    with pytest.raises(TypeError):
        buffer[0] = 1
    with pytest.raises(TypeError):
        view[0] = 1  # type: ignore[index]
    array = array_over(view)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(TypeError, match="not writable"):
        ctypes.c_char.from_buffer(view)


def test_a_copy_is_private_and_writable(view: View) -> None:
    copied = view.copy()
    assert type(copied) is bytearray
    copied[0] ^= 0xFF
    assert view == DATA
    view.release()
    assert copied[1:] == DATA[1:]


def test_equality_is_that_of_bytes(view: View) -> None:
    assert view == DATA
    assert (view == DATA) is True
    assert view == bytearray(DATA)
    assert view == View.wrap(DATA)
    assert view != DATA[:-1]
    assert view != b"\0" + DATA[1:]
    assert view != "text"
    assert view != 5
    with pytest.raises(TypeError, match="unhashable"):
        hash(view)


def test_it_pickles_and_copies_as_its_bytes(view: View) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(view, protocol)) == DATA
    assert copy.copy(view) == DATA
    (copied,) = copy.deepcopy([view])
    assert repr(copied) == repr(DATA)


def test_a_released_view_is_of_no_use_and_may_be_released_again(view: View) -> None:
    view.release()
    view.release()
    uses = [
        lambda: len(view),
        lambda: bytes(view),
        lambda: view[0],
        lambda: memoryview(view),
        lambda: view.copy(),
        lambda: view == DATA,
        lambda: pickle.dumps(view),
        view.__enter__,
    ]
    for use in uses:
        with pytest.raises(ValueError, match="released"):
            use()
    assert repr(view) == "<forebay.View released>"


def test_as_a_context_manager_it_is_released_at_the_end(view: View) -> None:
    with view as same:
        assert same is view
        assert view[:5] == DATA[:5]
    with pytest.raises(ValueError, match="released"):
        len(view)


def test_what_is_exported_cannot_be_released(view: View) -> None:
    array = array_over(view)
    slices = [view[5:10], memoryview(view)]
    with pytest.raises(BufferError, match="still in use"):
        view.release()
    assert bytes(view) == DATA
    del slices
    with pytest.raises(BufferError, match="still in use"):
        view.release()
    assert array[99_999] == DATA[-1]
    del array
    view.release()


def test_leaving_the_context_with_an_export_raises_and_keeps_the_bytes(view: View) -> None:
    with pytest.raises(BufferError), view:
        part = view[:10]
    assert part == DATA[:10]
    assert bytes(view) == DATA


def test_repr_names_length_and_kind(view: View) -> None:
    assert repr(view) == f"<forebay.View of 100000 bytes, {'zero-copy' if view.zero_copy else 'private'}>"


@pytest.mark.parametrize("data", [b"", b"x", bytearray(b"abc"), memoryview(b"abcdef")[1:4]])
def test_wrap_takes_any_buffer(data: bytes | bytearray | memoryview) -> None:
    wrapped = View.wrap(data)
    assert bytes(wrapped) == bytes(data)
    assert len(wrapped) == len(data)
    assert not wrapped.zero_copy


def test_wrap_counts_in_bytes_and_guards_the_buffer_against_resizing() -> None:
    numbers: Any = numpy.arange(6, dtype=numpy.int32).reshape(2, 3)
    wrapped = View.wrap(numbers)
    assert len(wrapped) == 24
    assert bytes(wrapped) == numbers.tobytes()
    growing = bytearray(b"abc")
    view = View.wrap(growing)
    with pytest.raises(BufferError):
        growing.append(1)
    view.release()
    growing.append(1)
    with pytest.raises(BufferError, match="contiguous"):
        View.wrap(numbers[:, ::2])


def test_a_view_holds_a_lease_until_it_is_released(store: BlockStore) -> None:
    assert store.status()["holders"] == []
    views = [held(store) for _ in range(3)]
    assert leases(store) == 3
    views[0].release()
    assert leases(store) == 2
    del views
    assert leases(store) == 0
    assert store.views == 0


def test_an_array_over_a_view_keeps_its_lease(store: BlockStore) -> None:
    array = array_over(held(store))
    gc.collect()
    assert leases(store) == 1
    tail = array[-10:]
    del array
    assert leases(store) == 1
    assert tail.tobytes() == DATA[-10:]
    del tail
    assert leases(store) == 0


def test_the_holder_is_named_with_what_it_holds(store: BlockStore) -> None:
    view = held(store)
    (holder,) = store.status()["holders"]
    assert holder["row"] == store.status()["rows"]["own"]
    assert holder["pid"] > 0
    assert holder["name"]
    assert holder["leases"] == 1
    view.release()


def test_bytes_under_a_view_stay_put_while_the_block_goes(store: BlockStore) -> None:
    view, part = held(store), held(store)[100:200]
    store.free_dataset(0)
    assert store.get(b"k") is None
    for number in range(2000):
        store.put(b"%d" % number, noise(40_000, number))
    assert view == DATA
    assert part == DATA[100:200]
    tier = store.status()["tiers"][0]
    assert tier["segments_held"] == 1
    assert tier["held_bytes"] == tier["segment_bytes"]
    view.release()
    del part
    maintain(store, lambda: store.status()["tiers"][0]["segments_held"] == 0)


def test_who_holds_too_much_gets_private_copies(stores: Stores) -> None:
    store = stores.open(max_held_bytes=3 * MIB)
    assert store.status()["max_held_bytes"] == 3 * MIB
    for number in range(63):
        store.put(b"%d" % number, noise(900 * KIB, number))
    views = [store.get(b"%d" % number) for number in range(4)]
    store.free_dataset(0)
    store.put(b"new", DATA)
    store.maintain()
    assert store.status()["holders"][0]["held_bytes"] > 3 * MIB
    changes = counting(store)
    copied = store.get(b"new")
    assert copied is not None
    assert not copied.zero_copy
    assert copied == DATA
    assert changes() == {"hits_mem": 1, "hit_bytes_mem": len(DATA), "private_copies": 1}
    for number, view in enumerate(views):
        assert view == noise(900 * KIB, number)
    del views, view
    store.maintain()
    direct = store.get(b"new")
    assert direct is not None
    assert direct.zero_copy


def test_by_default_a_process_holds_a_twentieth_of_memory_or_four_segments(stores: Stores) -> None:
    small = stores.open()
    assert small.status()["max_held_bytes"] == 4 * small.status()["tiers"][0]["segment_bytes"]
    large = stores.open(stores.tier(1024 * MIB, name="large"), path=stores.path.with_name("large"))
    assert large.status()["max_held_bytes"] == 1024 * MIB // 20


def test_disk_views_may_be_mapped(stores: Stores) -> None:
    store = stores.open(stores.tier(medium="SSD"), disk_views="map")
    store.put(b"k", DATA)
    view = held(store)
    assert view.zero_copy
    assert view == DATA
