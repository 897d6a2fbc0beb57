/* The block store: one crash-safe cache that many processes share without a daemon.
 *
 * Functions return 0 or a negative errno; out-parameters are untouched on failure unless said
 * otherwise. Any thread may call any function on an open store. Functions marked "may block" do
 * I/O or wait on a lock of another process and must be called without the interpreter lock.
 */
#ifndef FOREBAY_STORE_H
#define FOREBAY_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "forebay/hash.h"

#define FB_TIERS_MAX 16
#define FB_DATASETS_MAX 1024u
/* The lower bits of an id name a dataset. What lies under ids that differ above them has a retention of its
 * own, but one account and one quota. */
#define FB_DATASET_BITS 28u
#define FB_DATASET_NUMBER(id) ((id) & ((1u << FB_DATASET_BITS) - 1))
#define FB_PATH_MAX 256
#define FB_KEY_BYTES_MAX 4096
#define FB_BLOCK_BYTES_MAX (64u << 20)
#define FB_CHUNK_BYTES (64u << 10) /* one CRC32C each */
#define FB_NO_SEGMENT UINT32_MAX

enum fb_medium { FB_MEM = 0, FB_SSD = 1, FB_HDD = 2, FB_ANY_MEDIUM = 3 };
enum fb_checksum { FB_CHECKSUM_NONE = 0, FB_CHECKSUM_LOAD = 1, FB_CHECKSUM_READ = 2 };
/* FB_SPARE: admitted only below the low watermark, and the first to go: what can be had again at little cost.
 */
enum fb_retention { FB_EPOCH = 0, FB_S3FIFO = 1, FB_LRU = 2, FB_SPARE = 3 };

/* Counters; the names that users see stand in engine/metrics.py in this order. */
enum fb_counter {
    FB_C_HIT_MEM,
    FB_C_HIT_SSD,
    FB_C_HIT_HDD,
    FB_C_HIT_BYTES_MEM,
    FB_C_HIT_BYTES_SSD,
    FB_C_HIT_BYTES_HDD,
    FB_C_MISS_COLD,
    FB_C_MISS_EVICTED,
    FB_C_MISS_EXPIRED,
    FB_C_MISS_CHECKSUM,
    FB_C_MISS_BUSY,
    FB_C_MISS_IO,
    FB_C_PUT,
    FB_C_PUT_BYTES,
    FB_C_NOT_ADMITTED,
    FB_C_NOT_ADMITTED_BYTES,
    FB_C_WRITTEN_BYTES_MEM, /* everything written into a tier: admitted, moved, promoted */
    FB_C_WRITTEN_BYTES_SSD,
    FB_C_WRITTEN_BYTES_HDD,
    FB_C_EVICTED,
    FB_C_EVICTED_BYTES,
    FB_C_EXPIRED,
    FB_C_DELETED,
    FB_C_MOVED,
    FB_C_DEMOTED,
    FB_C_PROMOTED,
    FB_C_PRIVATE_COPIES,
    FB_C_FLIGHT_WAITS,
    FB_C_FLIGHT_TAKEOVERS,
    FB_C_FLIGHT_STALLED,
    FB_C_LOCK_TAKEOVERS,
    FB_C_PAGE_REPAIRS,
    FB_C_IO_ERRORS,
    FB_C_REBUILT_SEGMENTS,
    FB_C_SEGMENTS_RETIRED,
    FB_C_MISS_CHANGED,
    FB_C_MISS_NOT_ADMITTED,
    /* Counted by whoever fetches, through fb_count_for. */
    FB_C_PEER_DOWN,
    FB_C_SOURCE_REQUESTS,
    FB_C_SOURCE_BYTES,
    FB_C_SOURCE_ERRORS,
    FB_C_SOURCE_THROTTLED,
    FB_C_PEER_REQUESTS,
    FB_C_PEER_BYTES,
    FB_C_READAHEAD_BYTES,
    FB_C_LOAD_BYTES,
    FB_C_WRITES,
    FB_C_WRITE_BYTES,
    FB_C_WRITE_ERRORS,
    FB_C_SOURCE_GETS, /* requests as they are sent, repeated ones too */
    FB_C_SOURCE_HEADS,
    FB_C_SOURCE_LISTS,
    FB_C_SOURCE_PUTS,
    FB_C_SOURCE_DELETES,
    FB_C_COUNT,
    FB_C_QUICK = FB_C_MISS_COLD /* the first of them, hits and their bytes, are counted by quick calls too */
};

struct fb_tier_config {
    char path[FB_PATH_MAX];
    uint64_t quota_bytes;
    uint32_t medium;        /* enum fb_medium; tiers of one medium form one level */
    uint32_t high_permille; /* watermarks, of the quota in force */
    uint32_t low_permille;
};

struct fb_config {
    char path[FB_PATH_MAX]; /* the cache directory */
    struct fb_tier_config tiers[FB_TIERS_MAX];
    uint32_t tier_count;     /* 0: the tiers remembered by the cache directory */
    uint32_t row_count;      /* processes at once, 2 to 4096; more still read, by copies */
    uint32_t block_bytes;    /* the largest block that every tier with room for 16 of them must take */
    uint32_t checksum;       /* enum fb_checksum */
    bool map_disk;           /* zero-copy views of disk tiers, exposed to SIGBUS */
    bool read_only;          /* no row: copied, sequence-checked reads, nothing is written */
    bool reshape;            /* given tiers replace remembered ones; refused while others have it open */
    bool no_maintainer;      /* never start the maintainer's thread in this process */
    uint64_t max_held_bytes; /* 0: 5 % of the MEM quota, at least 4 segments */
    uint32_t stall_timeout_ms;
    uint32_t file_mode; /* 0600, or 0660 for a shared group */
    int64_t group_id;   /* -1: leave the group as it is */
    uint64_t promote_bytes_per_second;
};

struct fb_error {
    int code; /* negative errno */
    char message[512];
};

typedef struct fb_store fb_store;

/* A hit: `data` stays put until fb_release. `owned` is a pooled private buffer when the bytes were
 * copied; otherwise the hit holds one lease on `segment`. */
struct fb_hit {
    const uint8_t *data;
    uint64_t length_bytes;
    void *owned;
    uint32_t segment;
};

/* Open (and create, recover or join) the cache directory. May block up to 30 s while another
 * process recovers. On failure *error says what and where. -EINVAL: configuration; -EOPNOTSUPP:
 * refused file system; -EBUSY: in use by another kernel; -EPROTO: not ours or another version. */
int fb_open(const struct fb_config *config, fb_store **out, struct fb_error *error);

/* Stop the maintainer if it runs here, give up the row, write the clean flag when nobody else has
 * the store open. The caller guarantees that no hit is held. Frees the store. May block. */
void fb_close(fb_store *store);

/* Who looks a key up: a miss does not tell whose it is by itself. */
struct fb_asker {
    uint32_t dataset;
    bool changed; /* the object has changed, which is why the key may not be there */
    bool quiet;   /* a miss is not counted: whoever asks will ask again */
};

/* Look a key up. 0: *hit is filled. -ENOENT: a miss, counted once, by its cause. Takes no lock; a
 * hit in a MEM tier makes no system call. May block when the block lies on disk or is verified:
 * with `quick` set such a hit returns -EAGAIN instead, and the caller asks again without it. With
 * `quick`, called by one thread at a time (the interpreter lock does). */
int fb_get(fb_store *store, const struct fb_key *key, struct fb_asker asker, bool quick, struct fb_hit *hit);

/* Copy up to length_bytes from `offset` of a block. Returns the bytes copied in *copied. May block. */
int fb_read(fb_store *store, const struct fb_key *key, struct fb_asker asker, uint64_t offset,
            void *destination, uint64_t length_bytes, uint64_t *copied);
/* Whether a get would hit. May block for a moment; the second says -EAGAIN instead, else 1 or 0: where many
 * threads want the interpreter's lock, giving it away costs more than the look. */
bool fb_contains(fb_store *store, const struct fb_key *key);
int fb_contains_at_once(fb_store *store, const struct fb_key *key);

/* Give back a hit. fb_hold and fb_unhold count leases that outlive the call, for fork: to be called
 * for each hit kept, by one thread at a time (the interpreter lock does). */
void fb_release(fb_store *store, struct fb_hit *hit);
void fb_hold(fb_store *store, uint32_t segment);
void fb_unhold(fb_store *store, uint32_t segment);

/* How often a process forked on the way from the one that first opened a store here to this one: it differs
 * in a child, where calls of the parent's other threads never end. */
uint32_t fb_fork_generation(void);

/* On what terms a block is taken in. */
struct fb_terms {
    uint32_t dataset; /* whose it is */
    uint32_t medium;  /* enum fb_medium: its tiers are tried first */
    bool pinned;      /* where the pin fits; else it is admitted without one */
    double ttl_s;     /* < 0: never expires; a whole file does not */
};

/* A reservation: `data` is where the caller writes length_bytes. */
struct fb_fill {
    uint8_t *data;
    uint64_t length_bytes;
    struct fb_key key;
    void *owned;       /* private buffer, written out at commit */
    uint8_t *writable; /* map of the segment, or NULL */
    uint32_t segment;  /* FB_NO_SEGMENT: not admitted; the buffer is still there */
    uint32_t record;
    uint32_t unit;
    uint32_t generation;
    uint32_t owner;
    uint32_t dataset;
    uint32_t expiry_s;
    bool pinned;
};

/* 0: admitted. -ENOSPC: not admitted (no room, full table, busy): never an error for a reader.
 * fb_put alone: -EROFS when the store was opened read-only. */
int fb_put(fb_store *store, const struct fb_key *key, const struct fb_terms *terms, const void *data,
           uint64_t length_bytes);
int fb_reserve(fb_store *store, const struct fb_key *key, const struct fb_terms *terms, uint64_t length_bytes,
               struct fb_fill *fill);
int fb_fill_commit(fb_store *store, struct fb_fill *fill); /* 0 or -ENOSPC; ends the fill */
void fb_fill_abandon(fb_store *store, struct fb_fill *fill);

/* 0 or -ENOENT; -ETIMEDOUT when a stopped process holds the page's lock. */
int fb_delete(fb_store *store, const struct fb_key *key);
/* The figures of pins that were refused. */
struct fb_pin_room {
    uint64_t wanted_bytes, pinned_bytes, limit_bytes;
    char tier_path[FB_PATH_MAX];
};
/* A whole file has no pin and no expiry of its own: -ENOENT; its blocks have. -EDQUOT: above 80 % of its tier
 * would be pinned; *refused, if given, has the figures. Near that limit the index is counted. */
int fb_pin(fb_store *store, const struct fb_key *key, struct fb_pin_room *refused);
int fb_unpin(fb_store *store, const struct fb_key *key);
int fb_expire(fb_store *store, const struct fb_key *key, double ttl_s); /* < 0: never */

/* The same for many keys, one after the other: `done` is how many were there. An error ends a batch, and what
 * was done before stays done; but pins that do not all fit (-EDQUOT) are not begun. May block. */
struct fb_name {
    const void *bytes;
    uint32_t length_bytes;
};
struct fb_batch {
    const struct fb_name *names;
    uint64_t count;
    double ttl_s;               /* of fb_expire_many */
    uint8_t *there;             /* of fb_contains_many: `count` bytes, 1 or 0 each */
    uint64_t done;              /* out */
    struct fb_pin_room refused; /* out, of fb_pin_many */
};
int fb_delete_many(fb_store *store, struct fb_batch *batch);
int fb_pin_many(fb_store *store, struct fb_batch *batch); /* a name twice is weighed twice */
int fb_unpin_many(fb_store *store, struct fb_batch *batch);
int fb_expire_many(fb_store *store, struct fb_batch *batch);
int fb_contains_many(fb_store *store, struct fb_batch *batch);

/* Note that a block is not offered to the store for its caller's own reasons, as if it had been refused. */
void fb_refuse(fb_store *store, const struct fb_key *key, uint32_t dataset, uint64_t length_bytes);

/* Add to a counter from FB_C_PEER_DOWN on, for a dataset (0: none). -EINVAL: another counter. */
int fb_count_for(fb_store *store, uint32_t dataset, uint32_t counter, uint64_t n);
int fb_set_retention(fb_store *store, uint32_t dataset, uint32_t retention);
/* Over its quota nothing of a dataset is admitted; UINT64_MAX: none. Lasts as retention does. */
int fb_set_quota(fb_store *store, uint32_t dataset, uint64_t quota_bytes);
/* May block; waits up to a second for who retires a segment of the dataset or writes to one, then -EBUSY. */
int fb_free_dataset(fb_store *store, uint32_t dataset);

/* Whole-file segments: blocks are written at the file's own offsets; each can be read as soon as it
 * is written, the whole once fb_whole_complete has verified that every block is there. */
struct fb_whole {
    uint32_t segment;
    uint32_t generation;
    uint32_t owner;
    uint32_t block_bytes;
    uint64_t size_bytes;
    struct fb_key key;
    bool pinned;
    _Atomic uint64_t claimed_bytes; /* room for the pins of blocks that are still to be written */
};
int fb_whole_begin(fb_store *store, const struct fb_key *file_key, const struct fb_terms *terms,
                   uint64_t size_bytes, uint32_t block_bytes, struct fb_whole *out);
int fb_whole_write(fb_store *store, struct fb_whole *whole, uint64_t block, const struct fb_key *block_key,
                   const void *data, uint64_t length_bytes);
/* A block of it that comes in pieces of any length, in order: begin (-EALREADY: the block is in already),
 * append, and commit when all of it was appended, which publishes it. Given up by doing nothing more; nobody
 * else may write the same block meanwhile. -EINVAL: not of this file, more or less than the block. */
struct fb_whole_block {
    uint64_t number, length_bytes, done_bytes;
    struct fb_key key;
    uint32_t sums[FB_BLOCK_BYTES_MAX / FB_CHUNK_BYTES];
};
int fb_whole_block_begin(fb_store *store, const struct fb_whole *whole, uint64_t number,
                         const struct fb_key *block_key, struct fb_whole_block *out);
int fb_whole_block_append(fb_store *store, const struct fb_whole *whole, struct fb_whole_block *block,
                          const void *data, uint64_t length_bytes);
int fb_whole_block_commit(fb_store *store, struct fb_whole *whole, const struct fb_whole_block *block);
int fb_whole_complete(fb_store *store, struct fb_whole *whole);
void fb_whole_abandon(fb_store *store, struct fb_whole *whole);
int fb_whole_get(fb_store *store, const struct fb_key *file_key, struct fb_hit *hit);

/* Single flight: one fetcher of a key a host. fb_flight_begin returns 0 to the leader, -EALREADY to
 * a follower, -EAGAIN when the table is full (fetch alone). It may block for a moment, and waits for a
 * writer in the key's page of the index: the leader looks once more. fb_flight_begin_at_once says -EBUSY
 * instead. */
struct fb_flight_ticket {
    uint64_t lo, check;
    uint32_t entry; /* FB_NO_SEGMENT: none */
    uint32_t owner;
    uint32_t progress_seen;
    uint32_t done_seen;
    bool leads; /* progress and end of a follower's ticket do nothing */
    int64_t since_ms;
};
int fb_flight_begin(fb_store *store, const struct fb_key *key, struct fb_flight_ticket *ticket);
int fb_flight_begin_at_once(fb_store *store, const struct fb_key *key, struct fb_flight_ticket *ticket);
void fb_flight_progress(fb_store *store, struct fb_flight_ticket *ticket);
void fb_flight_end(fb_store *store, struct fb_flight_ticket *ticket);
/* Wait one step. 0: over (look again, or begin anew). -EAGAIN: still going on. -ESTALE: its fetcher
 * made no progress for stall_timeout: fetch alone, without admitting. */
int fb_flight_wait(fb_store *store, struct fb_flight_ticket *ticket, uint32_t step_ms);

struct fb_tier_status {
    char path[FB_PATH_MAX];
    uint32_t medium, level;
    uint64_t quota_bytes, effective_bytes;
    uint64_t segment_bytes;
    uint32_t segments_free, segments_open, segments_sealed, segments_held, segments_absent;
    uint32_t segments_unscanned, segments_whole;
    uint64_t used_bytes, held_bytes, free_bytes;
    uint64_t committed_bytes, committed_blocks, pinned_bytes;
    bool failed;
    char cause[96];
};

struct fb_holder {
    uint32_t row;
    int32_t pid;
    char name[16];
    uint64_t leases, held_bytes;
};

struct fb_dataset_status {
    uint32_t id;
    bool has_account; /* else its counters are among those of dataset 0 */
    uint64_t committed_bytes, blocks, pinned_bytes;
    uint64_t quota_bytes; /* UINT64_MAX: none */
    uint64_t counters[FB_C_COUNT];
};

struct fb_status {
    struct fb_tier_status tiers[FB_TIERS_MAX];
    uint32_t tier_count, dataset_count;
    uint64_t counters[FB_C_COUNT];
    uint64_t blocks, index_bytes, index_pages, index_bytes_max, live_bytes;
    uint32_t row, rows_used, row_count;
    uint32_t segments_mapped, segments_mapped_max;
    bool rebuilding, maintainer_alive, read_only;
    uint64_t max_held_bytes;
    char live_path[FB_PATH_MAX + 64];
};

/* Fill *out; scans the index (about 15 ms a million blocks), so the figures are exact. `datasets`, if given,
 * has room for FB_STATUS_DATASETS_MAX: the first is dataset 0, which stands for all without an account. May
 * block. */
#define FB_STATUS_DATASETS_MAX (FB_DATASETS_MAX + 64)
int fb_status_read(fb_store *store, struct fb_status *out, struct fb_dataset_status *datasets);
/* Up to `capacity` processes that hold leases; returns their count. */
uint32_t fb_holders(fb_store *store, struct fb_holder *out, uint32_t capacity);

struct fb_check_report {
    uint64_t pages, slots, records, segments, bytes_verified;
    uint64_t bad_pages, bad_slots, bad_records, bad_checksums, orphan_records, repaired;
    char first[256]; /* the first finding, in words */
};
/* Walk index, tables and data; with `repair` drop what is wrong. May block for long. */
int fb_check(fb_store *store, bool repair, bool data, struct fb_check_report *out);

/* One round of maintenance in the caller's thread. -EBUSY: another process is the maintainer. */
int fb_maintain(fb_store *store);
/* Move the store's clock, for every process that has it open (tests). 0 or -EROFS. */
int fb_clock_advance(fb_store *store, int64_t milliseconds);

/* The effective configuration, tiers included. */
void fb_config_read(fb_store *store, struct fb_config *out);
void fb_key_for(fb_store *store, const void *key, size_t length_bytes, struct fb_key *out);

#endif
