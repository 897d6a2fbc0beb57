/* Everything that lies in files: index, live, segments. All words that processes share are C11
 * atomics; sizes and offsets read from here are hostile until checked. */
#ifndef FB_LAYOUT_H
#define FB_LAYOUT_H

#include <stdatomic.h>
#include <stdint.h>

#include "forebay/store.h"

#define FB_FORMAT 1u
/* An index with other features is made anew from the record tables, which are the same in all. */
#define FB_FEATURE_ACCOUNTS 1u /* counters by dataset */
#define FB_FEATURES FB_FEATURE_ACCOUNTS
#define FB_INDEX_MAGIC 0x3158444e49594246ull   /* "FBYINDX1" */
#define FB_LIVE_MAGIC 0x3145564c59424621ull    /* "!FBYLVE1" */
#define FB_SEGMENT_MAGIC 0x314745532d594246ull /* "FBY-SEG1" */

/* ---- index: superblock, saved segment table, pages of slots --------------------------------- */

#define FB_INDEX_SUPER_BYTES 49152u
#define FB_PAGE_BYTES 65536u
#define FB_PAGE_SLOTS 2046u
/* The directory has 3 << directory_bits entries: with three roots the index doubles at 0.8, 1.6, 3.1
 * ... million blocks, so that round numbers of blocks find it well filled. */
#define FB_INDEX_ROOTS 3u
#define FB_PAGES_FIRST_BITS 3u /* a new index has 3 << 3 pages */
#define FB_PAGE_SPLIT_AT 1739u /* 85 % */
#define FB_PAGE_FULL_AT 1964u  /* 96 %, where the index may grow no more */

/* One slot, 32 bytes. `place` is written last and cleared first: a slot whose place is 0 is empty
 * whatever else it holds. */
struct fb_slot {
    _Atomic uint64_t lo;
    _Atomic uint64_t check;
    _Atomic uint64_t place;
    _Atomic uint64_t extent;
};
_Static_assert(sizeof(struct fb_slot) == 32, "two slots a cache line");

/* place: state 2 | flags 2 | verified generation 8 | record, low 14 bits | unit 22 | segment 16 */
/* A tombstone keeps a deleted key from coming back while a rebuild goes on. A slot that is being
 * overwritten is MOVING: it never ends a probe, so a writer killed there hides no other slot. */
enum { FB_SLOT_EMPTY = 0, FB_SLOT_PRESENT = 1, FB_SLOT_TOMBSTONE = 2, FB_SLOT_MOVING = 3 };
enum { FB_SLOT_PINNED = 1, FB_SLOT_WHOLE = 2 };
#define FB_PLACE(state, flags, verified, record, unit, segment)                                              \
    ((uint64_t)(state) | (uint64_t)(flags) << 2 | (uint64_t)(verified) << 4 |                                \
     ((uint64_t)(record) & 0x3fffu) << 12 | (uint64_t)(unit) << 26 | (uint64_t)(segment) << 48)
#define FB_PLACE_STATE(p) ((uint32_t)((p) & 3u))
#define FB_PLACE_FLAGS(p) ((uint32_t)((p) >> 2) & 3u)
#define FB_PLACE_VERIFIED(p) ((uint32_t)((p) >> 4) & 0xffu)
#define FB_PLACE_RECORD(p) ((uint32_t)((p) >> 12) & 0x3fffu)
#define FB_PLACE_UNIT(p) ((uint32_t)((p) >> 26) & 0x3fffffu)
#define FB_PLACE_SEGMENT(p) ((uint32_t)((p) >> 48) & 0xffffu)
#define FB_PLACE_UNIT_MAX 0x3fffffu
/* What must agree for two places to name the same bytes: all but flags and verified. */
#define FB_PLACE_LOCATION(p) ((p) & ~((uint64_t)0xffcu))
/* extent: length 27 | expiry 32, seconds of the store's clock, 0 = never */
#define FB_EXTENT(length, expiry) ((uint64_t)(length) | (uint64_t)(expiry) << 27)
#define FB_EXTENT_LENGTH(e) ((uint32_t)((e) & 0x7ffffffu))
#define FB_EXTENT_EXPIRY(e) ((uint32_t)((e) >> 27))
_Static_assert(FB_BLOCK_BYTES_MAX < 1u << 27, "a block's length fits its field");

#define FB_PAGE_MAGIC 0x50594246u
struct fb_page {
    uint32_t magic;
    uint32_t number;
    _Atomic uint32_t first; /* directory entries first .. first + span - 1 lead here */
    _Atomic uint32_t span;
    uint32_t reserved[12];
    struct fb_slot slots[FB_PAGE_SLOTS];
};
_Static_assert(sizeof(struct fb_page) <= FB_PAGE_BYTES, "a page is 64 KiB");

struct fb_tier_saved {
    char path[FB_PATH_MAX];
    uint64_t quota_bytes;
    uint64_t segment_bytes;
    uint32_t medium, high_permille, low_permille;
    uint32_t level;
    uint32_t segment_base; /* global number of its first slotted segment */
    uint32_t segment_count;
    uint32_t whole_base; /* whole-file segments have numbers of their own */
    uint32_t whole_count;
};

#define FB_ACCOUNTS 64u

struct fb_account_saved {
    uint64_t id_plus_1; /* the dataset's; 0: nobody's, or that of all others */
    uint64_t counters[FB_C_COUNT];
};

struct fb_index_super {
    uint64_t magic;
    uint32_t format, features;
    uint8_t store_id[16];
    uint32_t row_count, segment_count, page_count_max, directory_bits;
    uint32_t tier_count, ghost_count, block_bytes, reserved;
    struct fb_tier_saved tiers[FB_TIERS_MAX];
    uint64_t static_crc; /* of all above */
    /* written by whoever holds open.lock alone */
    char boot_id[40];
    uint64_t live_id;
    char live_path[FB_PATH_MAX + 64];
    uint32_t clean;
    uint32_t page_count;
    uint32_t verify_generation;
    uint32_t contents_crc; /* of the saved table of segments and all pages */
    int64_t clock_base_ms, closed_boot_ms, closed_real_ms;
    uint64_t sequence;
    struct fb_account_saved accounts[FB_ACCOUNTS];
    uint64_t dynamic_crc; /* of boot_id to accounts */
};
_Static_assert(sizeof(struct fb_index_super) <= FB_INDEX_SUPER_BYTES, "superblock fits");

/* ---- live: rows, leases, lock words, touch bytes --------------------------------------------- */

#define FB_LIVE_SUPER_BYTES 4096u
#define FB_ACCOUNT_SHARDS 16u
#define FB_FLIGHT_BUCKETS 512u
#define FB_FLIGHT_WAYS 8u
#define FB_PROMOTIONS 1024u
#define FB_GHOST_WAYS 8u
#define FB_TOUCH_PAGE_BYTES 2048u

/* row + 1 in bits 0..15, the row's incarnation in 16..30, waiters in 31; 0 = free */
typedef _Atomic uint32_t fb_lockword;

struct fb_row {
    _Atomic uint32_t incarnation;
    _Atomic int32_t pid; /* of its own PID namespace: for people, never for liveness */
    char name[16];
    _Atomic uint64_t held_bytes; /* retired segments that this row still leases; by the maintainer */
    _Atomic uint64_t pin_claims[FB_TIERS_MAX]; /* bytes that its owner is about to pin */
};

/* What was counted for one dataset, and the hits that a row counted for it by itself. */
struct fb_account {
    _Atomic uint64_t counters[FB_C_COUNT];
};
struct fb_quick {
    _Atomic uint64_t counters[FB_C_QUICK];
    uint64_t reserved[8 - FB_C_QUICK];
};
_Static_assert(sizeof(struct fb_quick) == 64, "a cache line each");

struct fb_page_meta {
    _Atomic uint32_t sequence; /* odd while slots change */
    fb_lockword lock;
    _Atomic uint32_t split_to;    /* page + 1 while a split is on its way */
    _Atomic uint32_t split_stage; /* 1 copying, 2 the new page is complete */
    _Atomic uint32_t used;
    uint32_t reserved[3];
};
_Static_assert(sizeof(struct fb_page_meta) == 32, "two a cache line");

enum fb_segment_state {
    FB_ABSENT = 0,
    FB_CREATING = 1,
    FB_FREE = 2,
    FB_OPEN = 3,
    FB_SEALED = 4,
    FB_RETIRING = 5,
    FB_HELD = 6,
    FB_UNSCANNED = 7,
    FB_BAD = 8, /* something else has its file's name */
};

/* word: end 23 (64-byte units) | records 21 | generation 16 | state 4: one compare-and-swap reserves. */
#define FB_WORD(state, generation, records, end)                                                             \
    ((uint64_t)(end) | (uint64_t)(records) << 23 | ((uint64_t)(generation) & 0xffffu) << 44 |                \
     (uint64_t)(state) << 60)
#define FB_WORD_END(w) ((uint32_t)((w) & 0x7fffffu))
#define FB_WORD_RECORDS(w) ((uint32_t)((w) >> 23) & 0x1fffffu)
#define FB_WORD_GENERATION(w) ((uint32_t)((w) >> 44) & 0xffffu)
#define FB_WORD_STATE(w) ((uint32_t)((w) >> 60))
#define FB_WORD_RECORDS_MAX 0x1fffffu
#define FB_UNIT_SHIFT 6u        /* slotted segments: units of 64 bytes */
#define FB_WHOLE_UNIT_SHIFT 16u /* whole-file segments: units of 64 KiB */

enum { FB_SEG_RECYCLED = 1, FB_SEG_MAIN_QUEUE = 2, FB_SEG_UNSYNCED = 4, FB_SEG_REBUILT = 8 };

struct fb_segment {
    _Atomic uint64_t word;
    _Atomic uint32_t generation; /* full width; the word has its low 16 bits */
    _Atomic uint32_t owner;      /* lock word of who creates, fills whole or retires it */
    _Atomic uint32_t dataset;    /* slot in the dataset table */
    _Atomic uint32_t flags;
    _Atomic uint64_t age; /* order of sealing */
    _Atomic uint64_t whole_bytes;
    _Atomic uint32_t whole_block_bytes;
    _Atomic uint32_t file_epoch; /* counts the files that have had this number */
    _Atomic uint64_t whole_lo, whole_check;
};
_Static_assert(sizeof(struct fb_segment) == 64, "a cache line each");

struct fb_dataset {
    _Atomic uint64_t id_plus_1; /* 0: unused */
    _Atomic uint32_t retention;
    _Atomic uint32_t read_s;   /* last read, store clock */
    _Atomic uint32_t wanted_s; /* last put that found no room, store clock; 0: satisfied */
    fb_lockword lock;
    _Atomic uint32_t account;               /* FB_ACCOUNTS: none of its own; 0: not known yet */
    _Atomic uint32_t open[FB_TIERS_MAX][2]; /* segment + 1; small and main queue */
    _Atomic uint32_t keeper;                /* slot + 1 of where quota and sum of its dataset are; 0: here */
    /* Away from what each hit reads. */
    _Atomic uint64_t quota_plus_1; /* 0: none */
    _Atomic uint64_t committed;    /* changes, modulo 2^16, in bits 48..63, above bytes of all its slots */
    uint64_t reserved_too[2];
};
_Static_assert(sizeof(struct fb_dataset) % 64 == 0, "whole cache lines");

struct fb_flight {
    _Atomic uint64_t lo, check;
    _Atomic uint32_t owner; /* 0: free; else a lock word */
    _Atomic uint32_t progress;
    _Atomic uint32_t done; /* futex: counts endings of this entry */
    uint32_t reserved;
};

struct fb_flight_bucket {
    fb_lockword lock;
    uint32_t reserved[7];
    struct fb_flight entries[FB_FLIGHT_WAYS];
};

struct fb_tier_live {
    _Atomic uint64_t effective_bytes;
    _Atomic int64_t failed_ms; /* last fault */
    _Atomic uint32_t failed;   /* directory taken out */
    _Atomic uint32_t error;    /* errno of the last fault */
    _Atomic uint32_t faults;
    _Atomic uint32_t clean_probes;
    _Atomic uint32_t evicting;    /* the evictor works from high down to low */
    _Atomic uint32_t shrunk;      /* room was short: effective_bytes is below the quota */
    _Atomic uint64_t pinned_hint; /* pinned bytes, or more */
    _Atomic uint64_t directory_device, directory_inode; /* the directory in use */
    _Atomic uint32_t directory_changes;
    _Atomic uint32_t on_mount_point;
};

struct fb_promotion {
    _Atomic uint64_t lo, check;
};

struct fb_live_super {
    uint64_t magic;
    uint32_t format;
    uint32_t mount_namespace; /* in which cache_path is meant; 0: not known */
    uint64_t live_id;
    char cache_path[FB_PATH_MAX]; /* whose it is */
    uint64_t total_bytes;         /* without touch bytes */
    _Atomic uint32_t ready;
    _Atomic uint32_t page_count;
    _Atomic uint32_t verify_generation; /* 1..255 */
    _Atomic uint32_t rows_high;         /* rows ever used */
    _Atomic uint64_t sequence;          /* of commits */
    _Atomic uint64_t age;               /* of sealings */
    _Atomic int64_t clock_offset_ms;
    _Atomic int64_t clock_base_ms;
    _Atomic uint32_t now_s; /* coarse store clock, by the maintainer */
    _Atomic uint32_t any_expiry;
    _Atomic uint32_t rebuilding;
    _Atomic uint32_t spare_page;         /* page + 1 of one left by a split that was cut short */
    _Atomic uint32_t deletes;            /* counts deletions, for compaction */
    _Atomic uint32_t committed_doubtful; /* a dataset's sum of committed bytes may be too high */
    fb_lockword grow_lock;
    fb_lockword tier_lock; /* creating and removing segment files */
    fb_lockword dataset_lock;
    _Atomic uint32_t maintainer_wake; /* futex */
    _Atomic int64_t maintainer_beat_ms;
    _Atomic uint64_t promotion_head;
    _Atomic uint64_t promotion_tail;
    _Atomic uint64_t account_ids[FB_ACCOUNTS]; /* whose each account is, + 1 */
    struct fb_tier_live tiers[FB_TIERS_MAX];
};
_Static_assert(sizeof(struct fb_live_super) <= FB_LIVE_SUPER_BYTES, "superblock fits");

/* ---- segments ------------------------------------------------------------------------------- */

#define FB_SEGMENT_SUPER_BYTES 4096u
#define FB_RECORD_BYTES 64u

struct fb_segment_super {
    uint64_t magic;
    uint32_t format, generation;
    uint8_t store_id[16];
    uint32_t tier_number, local_number;
    uint32_t dataset_id, whole_block_bytes;
    uint64_t file_bytes, whole_bytes;
    struct fb_key whole_key;
    uint32_t whole_sum; /* of the checksums of a complete file's blocks, in order */
    uint32_t crc;
};

/* Record states are words far apart, so that one store or a 4-byte write flips them. */
#define FB_RECORD_RESERVED 0x52455356u
#define FB_RECORD_COMMITTED 0x434f4d54u
#define FB_RECORD_DEAD 0x44454144u
#define FB_RECORD_PINNED 0x50494e44u /* committed and pinned */

struct fb_record {
    uint64_t hi, lo, check;
    uint64_t sequence;
    uint32_t unit, length;
    uint32_t generation; /* of the segment, so that an older use's entries are seen as such */
    uint32_t owner;
    uint32_t expiry;
    uint32_t crc;      /* of the data; above one chunk, of the chunk checksums behind the data */
    uint32_t self_crc; /* of all above */
    uint32_t state;
};
_Static_assert(sizeof(struct fb_record) == FB_RECORD_BYTES, "one cache line");

#endif
