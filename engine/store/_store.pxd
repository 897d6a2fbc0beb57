from libc.stdint cimport uint32_t, uint64_t

from forebay.store.c_store cimport (
    fb_asker,
    fb_batch,
    fb_batch_call,
    fb_fill,
    fb_flight_ticket,
    fb_hit,
    fb_key,
    fb_store,
    fb_whole,
    fb_whole_block,
)


cdef class BlockStore:
    cdef fb_store *c
    cdef readonly uint64_t views  # views, and calls in progress, that keep the C store open
    cdef uint64_t calls  # of those, calls that have given up the interpreter lock
    cdef uint32_t fork_generation  # as of which the calls are counted
    cdef bint closed
    cdef readonly str path
    cdef readonly uint32_t block_bytes
    cdef readonly bint read_only
    cdef dict arguments
    cdef int check_open(self) except -1
    cdef object look(self, bytes key, fb_asker asker, bint waits)
    cdef Py_ssize_t copy_into(self, bytes key, fb_asker asker, uint64_t offset, Py_buffer *target) except -2
    cdef void view_ended(self) noexcept
    cdef int call_begins_with(self, bytes key, fb_key *k) except -1
    cdef int call_begins(self) except -1
    cdef object do_batch(self, str what, fb_batch_call call, tuple keys, fb_batch *batch)
    cdef void call_of_view_begins(self) noexcept
    cdef void call_ended(self) noexcept
    cdef void forget_calls_of_parent(self) noexcept
    cdef void close_if_unused(self) noexcept


cdef class View:
    cdef BlockStore store
    cdef fb_hit hit
    cdef object keeper  # of a wrapped buffer; None for the store's own bytes
    cdef uint32_t exports
    cdef bint released
    cdef int check_held(self) except -1
    cdef void end(self) noexcept


cdef class Reservation:
    cdef BlockStore store
    cdef fb_fill fill
    cdef object buffer
    cdef uint32_t exports
    cdef bint open
    cdef bint given_up
    cdef readonly object admitted


cdef class FileReservation:
    cdef BlockStore store
    cdef fb_whole whole
    cdef uint32_t writers  # threads that write a block at the moment
    cdef bint open
    cdef readonly bint admitted
    cdef readonly object complete
    cdef int append(self, fb_whole_block *block, Py_buffer *piece) noexcept
    cdef int commit(self, fb_whole_block *block) noexcept
    cdef void write_ended(self) noexcept
    cdef int end(self, bint keep) noexcept


cdef class Claim:
    cdef BlockStore store
    cdef fb_flight_ticket ticket
    cdef readonly bint leader
    cdef readonly bint stalled
