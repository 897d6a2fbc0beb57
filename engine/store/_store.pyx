"""The block store for Python: converts arguments, releases the interpreter lock, calls C, raises."""

cimport cython
from cpython.buffer cimport (
    PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_CheckBuffer, PyObject_GetBuffer
)
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from libc.errno cimport EAGAIN, EALREADY, EBUSY, EDQUOT, EINVAL, ENODATA, ENOENT, ENOSPC, EROFS, ESTALE
from libc.stdint cimport UINT64_MAX, uint8_t, uint32_t, uint64_t

from forebay.store._arguments cimport check_length, fill_config, key_of, medium_of, names_of, ttl_of
from forebay.store._raise cimport error_for, open_error, pin_limit
from forebay.store.c_store cimport *

import os

from forebay.config import parse_bytes
from forebay.errors import Closed, ConfigError
from forebay.store.formats import remove_older_formats
from forebay.store.options import store_options
from forebay.store.report import CheckReport, counter_number, render_status

RETENTIONS = {"epoch": 0, "s3fifo": 1, "lru": 2, "spare": 3}

cdef enum:
    HOLDERS_MAX = 64


cdef list counters_of(const uint64_t *counters):
    cdef uint32_t i
    return [counters[i] for i in range(<uint32_t>FB_C_COUNT)]


cdef class BlockStore:
    """One crash-safe store of blocks on a host, shared by any number of processes without a daemon."""

    def __cinit__(self):
        self.c = NULL
        self.closed = True

    def __init__(self, path, tiers=None, **options):
        cdef fb_config config
        cdef fb_error error
        cdef fb_store *opened
        cdef int code
        if self.c != NULL:
            raise ValueError("the store is open already")
        self.path, chosen, values = store_options(path, tiers, options)
        self.arguments = {"path": self.path, "tiers": chosen, **options}
        fill_config(&config, self.path, chosen, values)
        with nogil:
            code = fb_open(&config, &opened, &error)
        if code != 0:
            raise open_error(code, error.message.decode("utf-8", "replace"), self.path)
        self.c = opened
        self.closed = False
        self.fork_generation = fb_fork_generation()
        fb_config_read(self.c, &config)
        self.block_bytes = config.block_bytes
        self.read_only = config.read_only
        if not self.read_only:
            paths = [<bytes>config.tiers[i].path for i in range(config.tier_count)]
            remove_older_formats(self.path, list(map(os.fsdecode, paths)))

    def __dealloc__(self):
        cdef fb_store *c = self.c
        self.c = NULL
        if c != NULL:
            with nogil:
                fb_close(c)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def __reduce__(self):
        # The copy joins what is open by then: there is nothing to reshape any more.
        return _reopen, ({name: value for name, value in self.arguments.items() if name != "reshape"},)

    cdef int check_open(self) except -1:
        if self.closed:
            raise Closed(f"{self.path}: the store is closed")
        return 0

    # A call that gives up the interpreter lock counts as a view meanwhile, so that a close in another
    # thread leaves it the C store.
    cdef int call_begins_with(self, bytes key, fb_key *k) except -1:
        self.check_open()
        key_of(self.c, key, k)
        return self.call_begins()

    cdef int call_begins(self) except -1:
        self.check_open()
        self.views += 1
        self.call_of_view_begins()
        return 0

    cdef void call_of_view_begins(self) noexcept:
        self.forget_calls_of_parent()
        self.calls += 1

    cdef void call_ended(self) noexcept:
        self.calls -= 1
        self.view_ended()

    cdef void view_ended(self) noexcept:
        self.views -= 1
        if self.closed:
            self.close_if_unused()

    # Its threads are not here to end them.
    cdef void forget_calls_of_parent(self) noexcept:
        if self.fork_generation != fb_fork_generation():
            self.fork_generation = fb_fork_generation()
            self.views -= self.calls
            self.calls = 0

    cdef void close_if_unused(self) noexcept:
        cdef fb_store *c = self.c
        self.forget_calls_of_parent()
        if self.views == 0 and c != NULL:
            self.c = NULL
            with nogil:
                fb_close(c)

    def close(self):
        """Close the store; views stay good, and the last of them to go really closes it."""
        if not self.closed:
            self.closed = True
            self.close_if_unused()

    @cython.final
    cdef inline object look(self, bytes key, fb_asker asker, bint waits):
        cdef fb_key k
        cdef fb_hit hit
        cdef int code
        cdef View view
        if self.closed:
            self.check_open()
        key_of(self.c, key, &k)
        view = View.__new__(View)  # meanwhile the slot comes from memory
        self.views += 1
        code = fb_get(self.c, &k, asker, True, &hit)
        if code == -EAGAIN and waits:
            self.call_of_view_begins()
            with nogil:
                code = fb_get(self.c, &k, asker, False, &hit)
            self.calls -= 1
        if code != 0:
            self.view_ended()
            if code == -ENOENT or code == -EAGAIN:
                return None
            raise error_for(code, "get")
        if hit.owned == NULL:
            fb_hold(self.c, hit.segment)
        view.store = self
        view.hit = hit
        return view

    # Bound and called the way of built-in methods, a seventh of a hit cheaper.
    @cython.binding(False)
    @cython.always_allow_keywords(False)
    def get(self, bytes key not None, uint32_t dataset=0, bint changed=False, /):
        """Return a view of the block, or None on a miss, which is counted for the dataset."""
        return self.look(key, fb_asker(dataset, changed, False), True)

    @cython.binding(False)
    @cython.always_allow_keywords(False)
    def peek(self, bytes key not None):
        """Return what `get` returns, but count no miss: for whoever then asks again."""
        return self.look(key, fb_asker(0, False, True), True)

    @cython.binding(False)
    @cython.always_allow_keywords(False)
    def glance(self, bytes key not None):
        """Return what `peek` returns where that needs no wait; None of what lies on disk, for example."""
        return self.look(key, fb_asker(0, False, True), False)

    def get_many(self, keys, uint32_t dataset=0):
        """Return what `get` returns for each key, in order."""
        return [self.get(key, dataset) for key in keys]

    def get_file(self, bytes key not None):
        """Return one contiguous view of a complete whole file, or None; its blocks may be there all the same."""
        cdef fb_key k
        cdef fb_hit hit
        cdef int code
        cdef View view
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_whole_get(self.c, &k, &hit)
        if code != 0:
            self.call_ended()
            return None
        self.calls -= 1
        hit.owned = NULL
        fb_hold(self.c, hit.segment)
        view = View.__new__(View)
        view.store = self
        view.hit = hit
        return view

    def readinto(self, bytes key not None, buffer, uint64_t offset=0, uint32_t dataset=0, bint changed=False, *,
                 bint quiet=False):
        """Copy the block from offset on into the buffer; return the bytes copied, or None on a miss."""
        cdef Py_buffer target
        PyObject_GetBuffer(buffer, &target, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            copied = self.copy_into(key, fb_asker(dataset, changed, quiet), offset, &target)
        finally:
            PyBuffer_Release(&target)
        return None if copied < 0 else copied

    # The bytes copied, or -1 on a miss.
    cdef Py_ssize_t copy_into(self, bytes key, fb_asker asker, uint64_t offset, Py_buffer *target) except -2:
        cdef fb_key k
        cdef uint64_t copied = 0
        cdef int code
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_read(self.c, &k, asker, offset, target.buf, target.len, &copied)
        self.call_ended()
        if code != 0 and code != -ENOENT:
            raise error_for(code, "readinto")
        return -1 if code != 0 else <Py_ssize_t>copied

    def put(self, bytes key not None, data, *, uint32_t dataset=0, ttl_s=None, bint pinned=False, str medium=None):
        """Store a block, in place of an earlier one of that key; return whether it was admitted."""
        cdef fb_key k
        cdef Py_buffer source
        cdef int code
        cdef fb_terms terms = fb_terms(dataset, medium_of(medium), pinned, ttl_of(ttl_s))
        self.call_begins_with(key, &k)
        try:
            PyObject_GetBuffer(data, &source, PyBUF_SIMPLE)
            try:
                check_length(source.len)
                with nogil:
                    code = fb_put(self.c, &k, &terms, source.buf, source.len)
            finally:
                PyBuffer_Release(&source)
        finally:
            self.call_ended()
        if code == -EROFS:
            raise error_for(code, "put")
        return code == 0

    def refuse(self, bytes key not None, uint64_t size_bytes, uint32_t dataset=0):
        """Note that a block is not offered, as if `put` had refused it."""
        cdef fb_key k
        self.call_begins_with(key, &k)
        fb_refuse(self.c, &k, dataset, size_bytes)
        self.call_ended()

    def reserve(
        self, bytes key not None, uint64_t size_bytes, *,
        uint32_t dataset=0, ttl_s=None, bint pinned=False, str medium=None
    ):
        """Return a context manager that gives a writable buffer, to be the block when it ends well."""
        cdef Reservation reservation = Reservation.__new__(Reservation)
        cdef fb_key k
        cdef int code
        cdef fb_terms terms = fb_terms(dataset, medium_of(medium), pinned, ttl_of(ttl_s))
        check_length(size_bytes)
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_reserve(self.c, &k, &terms, size_bytes, &reservation.fill)
        if code != 0:
            self.call_ended()
            raise MemoryError(f"no memory for a block of {size_bytes} bytes")
        self.calls -= 1
        reservation.store = self
        reservation.open = True
        return reservation

    def reserve_file(
        self, bytes key not None, uint64_t size_bytes, *,
        uint32_t dataset=0, block_bytes=None, bint pinned=False, str medium=None
    ):
        """Return a context manager that takes a whole file block by block into a segment of its own."""
        cdef FileReservation reservation = FileReservation.__new__(FileReservation)
        cdef fb_key k
        cdef int code
        cdef uint32_t block = self.block_bytes if block_bytes is None else block_bytes
        cdef fb_terms terms = fb_terms(dataset, medium_of(medium), pinned, -1)
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_whole_begin(self.c, &k, &terms, size_bytes, block, &reservation.whole)
        if code == -EINVAL:
            self.call_ended()
            raise ValueError(f"a file of {size_bytes} bytes in blocks of {block}: sizes out of range")
        self.calls -= 1
        reservation.store = self
        reservation.open = True
        reservation.admitted = code == 0
        return reservation

    def delete(self, bytes key not None):
        """Drop a block, or what is known of a whole file; return whether it was there."""
        cdef fb_key k
        cdef int code
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_delete(self.c, &k)
        self.call_ended()
        if code != 0 and code != -ENOENT:
            raise error_for(code, "delete")
        return code == 0

    def contains(self, bytes key not None):
        """Say whether a get would hit, without reading, counting or touching anything."""
        cdef fb_key k
        cdef int there
        self.call_begins_with(key, &k)
        there = fb_contains_at_once(self.c, &k)
        if there == -EAGAIN:
            with nogil:
                there = fb_contains(self.c, &k)
        self.call_ended()
        return there != 0

    def __contains__(self, bytes key not None):
        return self.contains(key)

    def claim(self, bytes key not None):
        """Become the one process of the host that fetches this key, or learn that another is."""
        cdef Claim claim = Claim.__new__(Claim)
        cdef fb_key k
        cdef int code
        self.call_begins_with(key, &k)
        code = fb_flight_begin_at_once(self.c, &k, &claim.ticket)
        if code == -EBUSY:
            with nogil:
                code = fb_flight_begin(self.c, &k, &claim.ticket)
        self.calls -= 1
        claim.store = self
        # Without a place in the table everybody fetches for himself: correct, only not shared.
        claim.leader = code != -EALREADY
        return claim

    def pin(self, bytes key not None):
        """Keep a block from eviction; return whether it is there."""
        cdef fb_key k
        cdef fb_pin_room refused
        cdef int code
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_pin(self.c, &k, &refused)
        self.call_ended()
        if code == -EDQUOT:
            raise pin_limit(&refused)
        if code != 0 and code != -ENOENT:
            raise error_for(code, "pin")
        return code == 0

    def unpin(self, bytes key not None):
        """Give a pinned block back to retention; return whether it is there."""
        cdef fb_key k
        cdef int code
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_unpin(self.c, &k)
        self.call_ended()
        if code != 0 and code != -ENOENT:
            raise error_for(code, "unpin")
        return code == 0

    def expire(self, bytes key not None, ttl_s):
        """Let a block expire ttl_s seconds from now, None: never; return whether it is there."""
        cdef fb_key k
        cdef int code
        cdef double seconds = ttl_of(ttl_s)
        self.call_begins_with(key, &k)
        with nogil:
            code = fb_expire(self.c, &k, seconds)
        self.call_ended()
        if code != 0 and code != -ENOENT:
            raise error_for(code, "expire")
        return code == 0

    def delete_many(self, keys):
        """Drop blocks, as `delete` does; return how many were there."""
        cdef fb_batch batch
        return self.do_batch("delete_many", fb_delete_many, tuple(keys), &batch)

    def contains_many(self, keys):
        """Return a byte for each key: 1 where a get would hit, 0 elsewhere."""
        cdef fb_batch batch
        cdef tuple all_keys = tuple(keys)
        cdef bytes there = PyBytes_FromStringAndSize(NULL, len(all_keys))
        batch.there = <uint8_t *>PyBytes_AS_STRING(there)
        self.do_batch("contains_many", fb_contains_many, all_keys, &batch)
        return there

    def pin_many(self, keys):
        """Pin the blocks that are there, all of them or, beyond the limit, none; return how many are."""
        cdef fb_batch batch
        return self.do_batch("pin_many", fb_pin_many, tuple(dict.fromkeys(keys)), &batch)

    def unpin_many(self, keys):
        """Give pinned blocks back to retention; return how many are there."""
        cdef fb_batch batch
        return self.do_batch("unpin_many", fb_unpin_many, tuple(dict.fromkeys(keys)), &batch)

    def expire_many(self, keys, ttl_s):
        """Let blocks expire ttl_s seconds from now, None: never; return how many are there."""
        cdef fb_batch batch
        batch.ttl_s = ttl_of(ttl_s)
        return self.do_batch("expire_many", fb_expire_many, tuple(dict.fromkeys(keys)), &batch)

    cdef object do_batch(self, str what, fb_batch_call call, tuple keys, fb_batch *batch):
        cdef bytes names = names_of(keys)
        cdef int code
        batch.names = <fb_name *>PyBytes_AS_STRING(names)
        batch.count = len(keys)
        batch.done = 0
        self.call_begins()
        with nogil:
            code = call(self.c, batch)
        self.call_ended()
        if code == -EDQUOT:
            raise pin_limit(&batch.refused)
        if code != 0:
            raise error_for(code, f"{what} of {batch.count} keys, after {batch.done}")
        return batch.done

    def set_retention(self, uint32_t dataset, str retention not None):
        """Choose what is evicted of a dataset, and when: "epoch", "s3fifo", "lru" or "spare"."""
        cdef int code
        self.check_open()
        if retention not in RETENTIONS:
            raise ConfigError(f"retention {retention!r}: must be one of {', '.join(RETENTIONS)}")
        code = fb_set_retention(self.c, dataset, RETENTIONS[retention])
        if code != 0:
            raise error_for(code, f"set_retention of dataset {dataset}")

    def set_quota(self, uint32_t dataset, quota):
        """Admit nothing of a dataset beyond so many bytes; None: no quota."""
        cdef int code
        cdef uint64_t quota_bytes = UINT64_MAX if quota is None else min(parse_bytes(quota, "quota"), UINT64_MAX - 1)
        self.check_open()
        code = fb_set_quota(self.c, dataset, quota_bytes)
        if code != 0:
            raise error_for(code, f"set_quota of dataset {dataset}")

    def free_dataset(self, uint32_t dataset):
        """Drop all blocks of a dataset, pinned ones too."""
        cdef int code
        self.call_begins()
        with nogil:
            code = fb_free_dataset(self.c, dataset)
        self.call_ended()
        if code != 0:
            raise error_for(code, f"free_dataset {dataset}")

    def status(self):
        """Return tiers, counters, holders and the rest as plain, JSON-able values."""
        cdef fb_status status
        cdef fb_holder[HOLDERS_MAX] holders
        cdef bytes array = PyBytes_FromStringAndSize(NULL, FB_STATUS_DATASETS_MAX * sizeof(fb_dataset_status))
        cdef fb_dataset_status *datasets = <fb_dataset_status *>PyBytes_AS_STRING(array)
        cdef uint32_t count, i
        self.call_begins()
        with nogil:
            fb_status_read(self.c, &status, datasets)
            count = fb_holders(self.c, holders, HOLDERS_MAX)
        self.call_ended()
        fields = dict(status)
        fields["counters"] = counters_of(status.counters)
        fields["tiers"] = [dict(status.tiers[i]) for i in range(status.tier_count)]
        fields["datasets"] = [
            {**dict(datasets[i]), "counters": counters_of(datasets[i].counters)}
            for i in range(status.dataset_count)
        ]
        return render_status(fields, [dict(holders[i]) for i in range(count)])

    def count(self, str name not None, uint64_t n=1, uint32_t dataset=0):
        """Add to one of the counters that are kept for whoever fetches, for a dataset."""
        cdef int code
        self.check_open()
        code = fb_count_for(self.c, dataset, counter_number(name), n)
        if code != 0:
            raise ValueError(f"{name!r} is no counter of the caller's")

    def check(self, bint repair=False, *, bint data=True):
        """Walk index, record tables and (data) every byte; with repair drop what is wrong."""
        cdef fb_check_report report
        self.call_begins()
        with nogil:
            fb_check(self.c, repair, data, &report)
        self.call_ended()
        return CheckReport.from_fields(dict(report))

    def maintain(self):
        """Do one round of maintenance here; return False when another process is the maintainer."""
        cdef int code
        self.call_begins()
        with nogil:
            code = fb_maintain(self.c)
        self.call_ended()
        if code == -EROFS:
            raise error_for(code, "maintain")
        return code == 0

    def advance_clock(self, double seconds):
        """Move the store's clock for every process that has it open: for tests."""
        self.check_open()
        if fb_clock_advance(self.c, <long long>(seconds * 1000)) != 0:
            raise error_for(-EROFS, "advance_clock")


def _reopen(arguments):
    return BlockStore(**arguments)


@cython.no_gc
@cython.freelist(256)
cdef class View:
    """A read-only buffer over cached bytes, which stay put until it is released."""

    def __init__(self):
        raise TypeError("views are made by BlockStore.get and View.wrap")

    def __dealloc__(self):
        if not self.released and self.store is not None:
            self.end()

    cdef void end(self) noexcept:
        cdef BlockStore store = self.store
        self.released = True
        if self.hit.owned == NULL:
            fb_unhold(store.c, self.hit.segment)
        fb_release(store.c, &self.hit)
        store.view_ended()

    @staticmethod
    def wrap(data):
        """Return a view over a buffer that is not the store's."""
        cdef View view = View.__new__(View)
        keeper = memoryview(data)
        if not keeper.c_contiguous:
            raise BufferError("a view is over contiguous bytes")
        view.keeper = keeper
        view.hit.data = <const uint8_t *>PyMemoryView_GET_BUFFER(keeper).buf
        view.hit.length_bytes = keeper.nbytes
        return view

    cdef int check_held(self) except -1:
        if self.released:
            raise ValueError("the view has been released")
        return 0

    @cython.binding(False)
    def release(self):
        """Give the bytes up; a view that is released may be released again."""
        if self.released:
            return
        if self.exports != 0:
            raise BufferError("the view's bytes are still in use by a memoryview or an array over it")
        if self.store is None:
            self.released = True
            self.keeper = None
        else:
            self.end()

    def __enter__(self):
        self.check_held()
        return self

    def __exit__(self, *exception):
        self.release()

    def __len__(self):
        self.check_held()
        return self.hit.length_bytes

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        self.check_held()
        PyBuffer_FillInfo(buffer, self, <void *>self.hit.data, self.hit.length_bytes, 1, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1

    def __getitem__(self, index):
        return memoryview(self)[index]

    def __bytes__(self):
        self.check_held()
        return PyBytes_FromStringAndSize(<const char *>self.hit.data, self.hit.length_bytes)

    def copy(self):
        """Return a private, writable copy."""
        return bytearray(self)

    def __eq__(self, other):
        if not PyObject_CheckBuffer(other):
            return NotImplemented
        return memoryview(self) == memoryview(other)

    __hash__ = None

    def __reduce__(self):
        return bytes, (bytes(self),)

    def __repr__(self):
        if self.released:
            return "<forebay.View released>"
        kind = "private" if self.store is None or self.hit.owned != NULL else "zero-copy"
        return f"<forebay.View of {self.hit.length_bytes} bytes, {kind}>"

    @property
    def zero_copy(self):
        """Whether the bytes lie in a segment of the store rather than in private memory."""
        return self.store is not None and self.hit.owned == NULL


@cython.no_gc_clear  # what ends it needs the store
cdef class Reservation:
    """Room for one block, filled in place through the buffer protocol."""

    def __init__(self):
        raise TypeError("reservations are made by BlockStore.reserve")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if not self.open or self.given_up:
            raise ValueError("the reservation has ended")
        PyBuffer_FillInfo(buffer, self, self.fill.data, self.fill.length_bytes, 0, flags)
        self.exports += 1

    def __releasebuffer__(self, Py_buffer *buffer):
        self.exports -= 1
        if self.given_up:
            self.abandon()

    def __enter__(self):
        if not self.open or self.given_up or self.buffer is not None:
            raise ValueError("a reservation is entered once")
        self.buffer = memoryview(self)
        return self.buffer

    def __exit__(self, kind, value, traceback):
        buffer, self.buffer = self.buffer, None
        try:
            buffer.release()
            if kind is None:
                self.commit()
                return
        except BufferError:
            # Somebody could still write through it: what would be committed is not what stays.
            if kind is None:
                self.abandon()
                raise
        self.abandon()

    def commit(self):
        """Publish the block; return whether it was admitted."""
        cdef int code
        if not self.open or self.given_up:
            raise ValueError("the reservation has ended")
        if self.exports != 0:
            raise BufferError("the reservation's buffer is still in use")
        self.open = False
        self.store.call_of_view_begins()
        with nogil:
            code = fb_fill_commit(self.store.c, &self.fill)
        self.admitted = code == 0
        self.store.call_ended()
        return self.admitted

    def abandon(self):
        """Give the block up: at once for everybody else, its memory when nothing uses the buffer any more."""
        if not self.open:
            return
        self.admitted = False
        self.given_up = True
        if self.exports != 0:
            return
        self.open = False
        self.store.call_of_view_begins()
        with nogil:
            fb_fill_abandon(self.store.c, &self.fill)
        self.store.call_ended()

    def __dealloc__(self):
        if self.open:
            self.open = False
            fb_fill_abandon(self.store.c, &self.fill)
            self.store.view_ended()


@cython.no_gc_clear
cdef class FileReservation:
    """A segment for one whole file, filled block by block."""

    def __init__(self):
        raise TypeError("file reservations are made by BlockStore.reserve_file")

    def write(self, uint64_t number, bytes key not None, data):
        """Write a block of the file, which can be read from then on; return whether it was admitted."""
        return self.write_pieces(number, key, (data,))

    def write_pieces(self, uint64_t number, bytes key not None, pieces):
        """Write a block that comes in pieces, in order; return whether it was admitted."""
        cdef fb_whole_block block
        cdef fb_key k
        cdef Py_buffer piece
        cdef uint64_t came = 0
        cdef int code
        if not self.open:
            raise ValueError("the reservation has ended")
        key_of(self.store.c, key, &k)
        if not self.admitted:
            return False
        self.writers += 1
        with nogil:
            code = fb_whole_block_begin(self.store.c, &self.whole, number, &k, &block)
        self.write_ended()
        if code == -EALREADY:
            return True
        for data in pieces if code == 0 else ():
            PyObject_GetBuffer(data, &piece, PyBUF_SIMPLE)
            came += piece.len
            code = self.append(&block, &piece)
            PyBuffer_Release(&piece)
            if code != 0:
                break
        if code == 0:
            code = self.commit(&block)
        if code == -EINVAL:
            raise ValueError(
                f"block {number} does not have {came} bytes in a file of {self.whole.size_bytes}, "
                "or it was written under another key"
            )
        return code == 0

    # What was given up between two pieces takes no more.
    cdef int append(self, fb_whole_block *block, Py_buffer *piece) noexcept:
        cdef int code
        if not self.open:
            return -ENOSPC
        self.writers += 1
        with nogil:
            code = fb_whole_block_append(self.store.c, &self.whole, block, piece.buf, piece.len)
        self.write_ended()
        return code

    cdef int commit(self, fb_whole_block *block) noexcept:
        cdef int code
        if not self.open:
            return -ENOSPC
        self.writers += 1
        with nogil:
            code = fb_whole_block_commit(self.store.c, &self.whole, block)
        self.write_ended()
        return code

    cdef void write_ended(self) noexcept:
        self.writers -= 1
        if not self.open and self.writers == 0:
            self.end(False)

    def __enter__(self):
        if not self.open:
            raise ValueError("the reservation has ended")
        return self

    def __exit__(self, kind, value, traceback):
        self.finish(kind is None)

    def finish(self, bint keep=True):
        """End the file: publish the whole, or give it up; return whether it is complete."""
        cdef int code = -ENOSPC
        if not self.open:
            return self.complete
        if keep and self.writers != 0:
            raise ValueError("another thread is still writing a block of the file")
        self.open = False
        self.complete = False
        # Who is in the middle of a write still needs the segment, and gives it up.
        if self.writers == 0:
            code = self.end(keep)
        self.complete = code == 0
        if keep and code == -ENODATA:
            raise ValueError("the file was ended before all its blocks were written; it is given up")
        return self.complete

    cdef int end(self, bint keep) noexcept:
        cdef int code = -ENOSPC
        self.store.call_of_view_begins()
        if self.admitted:
            with nogil:
                if keep:
                    code = fb_whole_complete(self.store.c, &self.whole)
                else:
                    fb_whole_abandon(self.store.c, &self.whole)
        self.store.call_ended()
        return code

    def __dealloc__(self):
        # A thread that writes after a fork is the parent's.
        if self.open or self.writers != 0:
            self.open = False
            if self.admitted:
                fb_whole_abandon(self.store.c, &self.whole)
            self.store.view_ended()


@cython.no_gc_clear
cdef class Claim:
    """The right to fetch a key for the host (leader), or a place to wait for whoever has it."""

    def __init__(self):
        raise TypeError("claims are made by BlockStore.claim")

    def progress(self):
        """Tell the followers that the fetch goes on."""
        if self.leader:
            fb_flight_progress(self.store.c, &self.ticket)

    def done(self):
        """End the flight, whether it brought the block or not."""
        if self.leader:
            fb_flight_end(self.store.c, &self.ticket)

    def wait(self, double timeout_s):
        """Wait for the fetch to end, at most timeout_s; return whether it is over (or its fetcher is)."""
        cdef int code
        cdef uint32_t step_ms = 100
        cdef double left_ms = timeout_s * 1000
        if self.leader or self.store is None:
            return True
        while True:
            step_ms = <uint32_t>min(100.0, left_ms) if left_ms > 0 else 0
            with nogil:
                code = fb_flight_wait(self.store.c, &self.ticket, step_ms)
            if code != -EAGAIN:
                self.stalled = code == -ESTALE
                return True
            left_ms -= step_ms
            if not left_ms > 0:
                return False
            PyErr_CheckSignals()

    def __dealloc__(self):
        if self.store is not None:
            if self.leader:
                fb_flight_end(self.store.c, &self.ticket)
            self.store.view_ended()


cdef extern from "Python.h":
    int PyErr_CheckSignals() except -1
