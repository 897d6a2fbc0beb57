/* Stores in temporary directories, blocks whose bytes follow from their number, and processes that die.
 *
 * Each handle that fixture_open gives has a row of its own: several handles in one process stand for as many
 * processes. The maintainer's thread is off unless a test turns it on; time moves by fb_clock_advance.
 */
#ifndef FB_TESTS_STORE_FIXTURE_H
#define FB_TESTS_STORE_FIXTURE_H

#include "check.h"
#include "engine.h"
#include "index.h"
#include "segment.h"

#define MIB ((uint64_t)1 << 20)
#define NOBODY ((struct fb_asker){.dataset = 0})
#define TERMS(dataset_id, seconds)                                                                           \
    (&(struct fb_terms){.dataset = (dataset_id), .medium = FB_ANY_MEDIUM, .ttl_s = (seconds)})

struct fixture {
    char root[64];
    struct fb_config config;
};

/* A new directory on tmpfs with one MEM tier of quota_bytes (16 MiB: 15 segments of about 1 MiB). */
void fixture_begin(struct fixture *f, uint64_t quota_bytes);
/* One more tier; to be called before the first opening. */
void fixture_add_tier(struct fixture *f, enum fb_medium medium, uint64_t quota_bytes);
/* Remove a tier's directory with all that is in it. */
void fixture_remove_tier(const struct fixture *f, uint32_t tier);
/* Remove all files. The handles are closed by then. */
void fixture_end(struct fixture *f);
/* Remove a directory with all that is in it. 0, or -1 where somebody puts something in meanwhile. */
int fixture_remove_tree(const char *path);

fb_store *fixture_open(const struct fixture *f);
/* fixture_begin and the first opening; the last closing and fixture_end. */
fb_store *fixture_begin_store(struct fixture *f, uint64_t quota_bytes);
void fixture_end_store(struct fixture *f, fb_store *s);
/* What fb_open answers where it must refuse, with the reason. */
int fixture_refused(const struct fixture *f, struct fb_error *error);
/* As death leaves it: the locks are gone, leases, lock words and half-done work stay. Frees the handle. */
void fixture_kill(fb_store *s);
/* Only the row's lock goes: the handle can still be looked at, and fixture_kill frees it. */
void fixture_die(fb_store *s);
/* PATH below the cache directory's v1, or below a tier's. */
void fixture_path(const struct fixture *f, const char *name, char out[FB_PATH_MAX]);
void fixture_tier_path(const struct fixture *f, uint32_t tier, const char *name, char out[FB_PATH_MAX]);
void fixture_segment_path(const struct fixture *f, fb_store *s, uint32_t segment, char out[FB_PATH_MAX]);
/* Overwrite bytes of a file in place. */
void fixture_damage(const char *path, uint64_t offset, const void *data, size_t length_bytes);

struct fb_key key_of_number(uint64_t number);
/* A key that leads to the directory entry of lo_top's high bits and to the home slot of its low half. */
struct fb_key key_at(uint32_t lo_top, uint32_t lo_bottom, uint64_t check);

/* Byte i of block `number`; version tells apart blocks put under one key. */
void block_bytes(uint64_t number, uint32_t version, uint8_t *out, uint64_t length_bytes);
bool block_is(uint64_t number, uint32_t version, const uint8_t *data, uint64_t length_bytes);

/* fb_put of such a block, into dataset 0; whether it was admitted. */
bool block_put(fb_store *s, uint64_t number, uint32_t version, uint64_t length_bytes);
/* Get and compare: true on a hit, and then the bytes are right; false on a miss. */
bool block_hit(fb_store *s, uint64_t number, uint32_t version, uint64_t length_bytes);
/* All blocks from first to before end are hits. */
void blocks_hit(fb_store *s, uint64_t first, uint64_t end, uint64_t length_bytes);
/* A hit that is kept; checks that it is one. */
struct fb_hit block_hold(fb_store *s, uint64_t number);
/* Room for a block of dataset 0, which is not filled yet. */
struct fb_fill block_reserve(fb_store *s, uint64_t number, uint64_t length_bytes);
/* fb_delete of a block that is there. */
void block_delete(fb_store *s, uint64_t number);

/* Where a key's slot is: it must be there. */
struct fb_found block_found(fb_store *s, uint64_t number);
uint32_t block_segment(fb_store *s, uint64_t number);

/* Spoil one byte of a block's data in its file. */
void block_damage(const struct fixture *f, fb_store *s, uint64_t number, uint64_t offset);

/* Put blocks first, first + 1, ... until the segment that the first went to is sealed; one past the last that
 * lies in it. */
uint64_t fill_segment(fb_store *s, uint64_t first, uint64_t length_bytes);
/* So many segments, one after the other. */
uint64_t fill_segments(fb_store *s, uint32_t count, uint64_t first, uint64_t length_bytes);

/* No bad page, slot, record or checksum, whatever happened. */
void store_is_sound(fb_store *s);
/* Blocks that the index names. */
uint64_t store_blocks(fb_store *s);
uint64_t store_counter(fb_store *s, enum fb_counter counter);

#endif
