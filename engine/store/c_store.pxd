"""The C library's public functions, as csrc/include/forebay/store.h declares them."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from "forebay/store.h" nogil:
    enum:
        FB_TIERS_MAX
        FB_PATH_MAX
        FB_KEY_BYTES_MAX
        FB_BLOCK_BYTES_MAX
        FB_C_COUNT
        FB_STATUS_DATASETS_MAX
        FB_ANY_MEDIUM

    struct fb_key:
        uint64_t hi
        uint64_t lo
        uint64_t check

    struct fb_tier_config:
        char path[FB_PATH_MAX]
        uint64_t quota_bytes
        uint32_t medium
        uint32_t high_permille
        uint32_t low_permille

    struct fb_config:
        char path[FB_PATH_MAX]
        fb_tier_config tiers[FB_TIERS_MAX]
        uint32_t tier_count
        uint32_t row_count
        uint32_t block_bytes
        uint32_t checksum
        bint map_disk
        bint read_only
        bint reshape
        bint no_maintainer
        uint64_t max_held_bytes
        uint32_t stall_timeout_ms
        uint32_t file_mode
        int64_t group_id
        uint64_t promote_bytes_per_second

    struct fb_error:
        int code
        char message[512]

    ctypedef struct fb_store:
        pass

    struct fb_hit:
        const uint8_t *data
        uint64_t length_bytes
        void *owned
        uint32_t segment

    struct fb_terms:
        uint32_t dataset
        uint32_t medium
        bint pinned
        double ttl_s

    struct fb_fill:
        uint8_t *data
        uint64_t length_bytes
        uint32_t segment

    struct fb_whole:
        uint32_t segment
        uint32_t block_bytes
        uint64_t size_bytes

    struct fb_whole_block:
        uint64_t length_bytes

    struct fb_flight_ticket:
        uint32_t entry

    struct fb_asker:
        uint32_t dataset
        bint changed
        bint quiet

    struct fb_tier_status:
        char path[FB_PATH_MAX]
        uint32_t medium
        uint32_t level
        uint64_t quota_bytes
        uint64_t effective_bytes
        uint64_t segment_bytes
        uint32_t segments_free
        uint32_t segments_open
        uint32_t segments_sealed
        uint32_t segments_held
        uint32_t segments_absent
        uint32_t segments_unscanned
        uint32_t segments_whole
        uint64_t used_bytes
        uint64_t held_bytes
        uint64_t free_bytes
        uint64_t committed_bytes
        uint64_t committed_blocks
        uint64_t pinned_bytes
        bint failed
        char cause[96]

    struct fb_holder:
        uint32_t row
        int32_t pid
        char name[16]
        uint64_t leases
        uint64_t held_bytes

    struct fb_dataset_status:
        uint32_t id
        bint has_account
        uint64_t committed_bytes
        uint64_t blocks
        uint64_t pinned_bytes
        uint64_t quota_bytes
        uint64_t counters[FB_C_COUNT]

    struct fb_status:
        fb_tier_status tiers[FB_TIERS_MAX]
        uint32_t tier_count
        uint32_t dataset_count
        uint64_t counters[FB_C_COUNT]
        uint64_t blocks
        uint64_t index_bytes
        uint64_t index_pages
        uint64_t index_bytes_max
        uint64_t live_bytes
        uint32_t row
        uint32_t rows_used
        uint32_t row_count
        uint32_t segments_mapped
        uint32_t segments_mapped_max
        bint rebuilding
        bint maintainer_alive
        bint read_only
        uint64_t max_held_bytes
        char live_path[FB_PATH_MAX + 64]

    struct fb_check_report:
        uint64_t pages
        uint64_t slots
        uint64_t records
        uint64_t segments
        uint64_t bytes_verified
        uint64_t bad_pages
        uint64_t bad_slots
        uint64_t bad_records
        uint64_t bad_checksums
        uint64_t orphan_records
        uint64_t repaired
        char first[256]

    struct fb_pin_room:
        uint64_t wanted_bytes
        uint64_t pinned_bytes
        uint64_t limit_bytes
        char tier_path[FB_PATH_MAX]

    struct fb_name:
        const void *bytes
        uint32_t length_bytes

    struct fb_batch:
        const fb_name *names
        uint64_t count
        double ttl_s
        uint8_t *there
        uint64_t done
        fb_pin_room refused


    int fb_open(const fb_config *config, fb_store **out, fb_error *error)
    void fb_close(fb_store *store)
    int fb_get(fb_store *store, const fb_key *key, fb_asker asker, bint quick, fb_hit *hit)
    int fb_read(fb_store *store, const fb_key *key, fb_asker asker, uint64_t offset, void *destination,
                uint64_t length_bytes, uint64_t *copied)
    bint fb_contains(fb_store *store, const fb_key *key)
    int fb_contains_at_once(fb_store *store, const fb_key *key)
    void fb_release(fb_store *store, fb_hit *hit)
    void fb_hold(fb_store *store, uint32_t segment)
    void fb_unhold(fb_store *store, uint32_t segment)
    uint32_t fb_fork_generation()
    int fb_put(fb_store *store, const fb_key *key, const fb_terms *terms, const void *data, uint64_t length_bytes)
    int fb_reserve(fb_store *store, const fb_key *key, const fb_terms *terms, uint64_t length_bytes,
                   fb_fill *fill)
    int fb_fill_commit(fb_store *store, fb_fill *fill)
    void fb_fill_abandon(fb_store *store, fb_fill *fill)
    int fb_delete(fb_store *store, const fb_key *key)
    int fb_pin(fb_store *store, const fb_key *key, fb_pin_room *refused)
    int fb_unpin(fb_store *store, const fb_key *key)
    int fb_delete_many(fb_store *store, fb_batch *batch)
    int fb_pin_many(fb_store *store, fb_batch *batch)
    int fb_unpin_many(fb_store *store, fb_batch *batch)
    int fb_expire_many(fb_store *store, fb_batch *batch)
    int fb_contains_many(fb_store *store, fb_batch *batch)
    void fb_refuse(fb_store *store, const fb_key *key, uint32_t dataset, uint64_t length_bytes)
    int fb_count_for(fb_store *store, uint32_t dataset, uint32_t counter, uint64_t n)
    int fb_expire(fb_store *store, const fb_key *key, double ttl_s)
    int fb_set_retention(fb_store *store, uint32_t dataset, uint32_t retention)
    int fb_set_quota(fb_store *store, uint32_t dataset, uint64_t quota_bytes)
    int fb_free_dataset(fb_store *store, uint32_t dataset)
    int fb_whole_begin(fb_store *store, const fb_key *file_key, const fb_terms *terms, uint64_t size_bytes,
                       uint32_t block_bytes, fb_whole *out)
    int fb_whole_write(fb_store *store, fb_whole *whole, uint64_t block, const fb_key *block_key,
                       const void *data, uint64_t length_bytes)
    int fb_whole_block_begin(fb_store *store, const fb_whole *whole, uint64_t number, const fb_key *block_key,
                             fb_whole_block *out)
    int fb_whole_block_append(fb_store *store, const fb_whole *whole, fb_whole_block *block, const void *data,
                              uint64_t length_bytes)
    int fb_whole_block_commit(fb_store *store, fb_whole *whole, const fb_whole_block *block)
    int fb_whole_complete(fb_store *store, fb_whole *whole)
    void fb_whole_abandon(fb_store *store, fb_whole *whole)
    int fb_whole_get(fb_store *store, const fb_key *file_key, fb_hit *hit)
    int fb_flight_begin(fb_store *store, const fb_key *key, fb_flight_ticket *ticket)
    int fb_flight_begin_at_once(fb_store *store, const fb_key *key, fb_flight_ticket *ticket)
    void fb_flight_progress(fb_store *store, fb_flight_ticket *ticket)
    void fb_flight_end(fb_store *store, fb_flight_ticket *ticket)
    int fb_flight_wait(fb_store *store, fb_flight_ticket *ticket, uint32_t step_ms)
    int fb_status_read(fb_store *store, fb_status *out, fb_dataset_status *datasets)
    uint32_t fb_holders(fb_store *store, fb_holder *out, uint32_t capacity)
    int fb_check(fb_store *store, bint repair, bint data, fb_check_report *out)
    int fb_maintain(fb_store *store)
    int fb_clock_advance(fb_store *store, int64_t milliseconds)
    void fb_config_read(fb_store *store, fb_config *out)
    void fb_key_for(fb_store *store, const void *key, size_t length_bytes, fb_key *out)


ctypedef int (*fb_batch_call)(fb_store *store, fb_batch *batch) noexcept nogil
