/* Placement: which members of a group a key belongs to, best first, by weighted rendezvous hashing.
 *
 * Every member draws a number for every key, and the least draw owns it. A member's draw depends on the key,
 * on its own id and on its own weight alone, so whoever comes or goes moves only what it owns itself, and
 * the member ranked second is the owner when the first is gone. A draw is -log2(u) / weight for a u that is
 * uniform between 0 and 1: an exponential whose rate is the weight, so a member owns its weight's share.
 *
 * All is integer arithmetic: every machine finds the same members. Changing any of it moves every block of
 * every group: the method is then another one, with a new name in the handshake.
 *
 * Threads: any, once initialized; nothing changes afterwards.
 *
 * Sources: D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates" (1998); J. Resch,
 * "New hashing algorithms for data storage" (2015), for the weights; D. Stafford's mixer 13.
 */
#ifndef FOREBAY_PLACEMENT_H
#define FOREBAY_PLACEMENT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FB_PLACEMENT_MEMBERS_MAX 4096u
#define FB_PLACEMENT_ID_BYTES 16

/* Weights are fixed-point numbers: this is a weight of 1, and below are the bounds. */
#define FB_PLACEMENT_WEIGHT_ONE 65536u
#define FB_PLACEMENT_WEIGHT_MIN 65u
#define FB_PLACEMENT_WEIGHT_MAX (1u << 30)

struct fb_placement_member {
    uint8_t id[FB_PLACEMENT_ID_BYTES];
    uint32_t weight;
    uint32_t zone; /* members of one zone have the same number, below the number of members */
};

struct fb_placement;

/* How much memory a placement of so many members takes. It holds no pointers: it is freed as it was got. */
size_t fb_placement_bytes(uint32_t member_count);

/* Make a placement in memory of fb_placement_bytes(member_count), aligned to 8. Members come in the order of
 * their ids, which breaks ties, each id once. -EINVAL, and nothing is promised of the memory: too many
 * members, out of order, a weight out of bounds, a zone out of bounds. */
int fb_placement_init(struct fb_placement *p, const struct fb_placement_member *members,
                      uint32_t member_count);

/* The key of a run of a file: murmur3 of (murmur3 of the data set's name, murmur3 of the path, run number).
 * No alignment asked of either; each may be NULL only when it is empty. */
uint64_t fb_placement_key(const void *dataset, size_t dataset_bytes, const void *path, size_t path_bytes,
                          uint64_t run_number);

/* Write the first count members of a key into out, by their numbers, and return how many there are.
 *
 * Rank 0 is the least draw. Each further rank is the least draw among those whose zone has no member above
 * it, or, where every zone has one, among all that are left. is_skipped has a byte for each member: those
 * that are not 0 are left out of what is written, but rank (and stand for their zones) as all others do, so
 * those who are not skipped keep their order. NULL skips nobody. */
uint32_t fb_placement_rank(const struct fb_placement *p, uint64_t key, const uint8_t *is_skipped,
                           uint32_t count, uint32_t *out);

#ifdef __cplusplus
}
#endif

#endif
