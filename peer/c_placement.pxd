"""The C library's placement, as csrc/include/forebay/placement.h declares it."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t


cdef extern from "forebay/placement.h" nogil:
    enum:
        FB_PLACEMENT_MEMBERS_MAX
        FB_PLACEMENT_ID_BYTES
        FB_PLACEMENT_WEIGHT_ONE
        FB_PLACEMENT_WEIGHT_MIN
        FB_PLACEMENT_WEIGHT_MAX

    struct fb_placement:
        pass

    struct fb_placement_member:
        uint8_t id[FB_PLACEMENT_ID_BYTES]
        uint32_t weight
        uint32_t zone

    size_t fb_placement_bytes(uint32_t member_count)
    int fb_placement_init(fb_placement *p, const fb_placement_member *members, uint32_t member_count)
    uint64_t fb_placement_key(
        const void *dataset, size_t dataset_bytes, const void *path, size_t path_bytes, uint64_t run_number
    )
    uint32_t fb_placement_rank(
        const fb_placement *p, uint64_t key, const uint8_t *is_skipped, uint32_t count, uint32_t *out
    )
