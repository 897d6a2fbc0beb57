/* Weighted rendezvous hashing; see forebay/placement.h. */
#include "forebay/placement.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "forebay/hash.h"

/* Logarithms are fixed-point numbers of LOG_BITS binary places, between the entries of a table of
 * 2^TABLE_BITS steps on a line. The error is below 2^-18, and where it counts, near a u of 1, it is the same
 * factor for all members. On a line between neighbours nothing falls where u rises, which the order of
 * members of equal weight rests on. */
#define LOG_BITS 48
#define TABLE_BITS 8
#define TABLE_STEPS (1u << TABLE_BITS)
#define REST_BITS (63 - TABLE_BITS) /* of a number whose highest bit is set, below the table's index */
#define PART_BITS 23                /* of the rest, as many as a step of the table can be multiplied by */

#define INVERSE_BITS 62
#define DRAW_SHIFT 46
#define TAKEN UINT64_MAX

_Static_assert(UINT64_C(1) << 6 <= FB_PLACEMENT_WEIGHT_MIN, "a draw of 64 at the least weight fits 64 bits");

struct row {
    uint64_t seed;
    uint64_t inverse_weight;
    uint32_t zone;
};

struct fb_placement {
    uint32_t member_count;
    bool is_even; /* all weights are the same: the order of draws is that of the hashes */
    uint64_t log2_table[TABLE_STEPS + 1];
    struct row rows[];
};

/* ---- drawing ---- */

static inline uint64_t mix(uint64_t word)
{
    word = (word ^ word >> 30) * 0xbf58476d1ce4e5b9;
    word = (word ^ word >> 27) * 0x94d049bb133111eb;
    return word ^ word >> 31;
}

static inline uint64_t hash_of(const struct row *row, uint64_t key)
{
    return mix(key ^ row->seed);
}

/* log2 of 1 + i / TABLE_STEPS, by squaring: each time the square reaches 2, a binary place is 1. */
static uint64_t log2_of_step(uint32_t i)
{
    if (i == TABLE_STEPS)
        return UINT64_C(1) << LOG_BITS;
    uint64_t x = (UINT64_C(1) << 62) + ((uint64_t)i << (62 - TABLE_BITS)), log = 0;
    for (int place = 0; place < LOG_BITS; place++) {
        x = (uint64_t)((unsigned __int128)x * x >> 62);
        log = log << 1 | x >> 63;
        x >>= x >> 63;
    }
    return log;
}

/* -log2(u) of u = hash / 2^64; 0 stands for the least u that there is. */
static inline uint64_t minus_log2(const struct fb_placement *p, uint64_t hash)
{
    hash = hash != 0 ? hash : 1;
    unsigned zeros = (unsigned)__builtin_clzll(hash);
    uint64_t top = hash << zeros;
    uint64_t index = top >> REST_BITS & (TABLE_STEPS - 1);
    uint64_t part = (top & ((UINT64_C(1) << REST_BITS) - 1)) >> (REST_BITS - PART_BITS);
    uint64_t below = p->log2_table[index];
    uint64_t log = below + ((p->log2_table[index + 1] - below) * part >> PART_BITS);
    return ((uint64_t)(zeros + 1) << LOG_BITS) - log;
}

static inline uint64_t draw_of(const struct fb_placement *p, const struct row *row, uint64_t hash)
{
    unsigned __int128 draw = (unsigned __int128)minus_log2(p, hash) * row->inverse_weight;
    return (uint64_t)(draw >> DRAW_SHIFT);
}

static void draw_all(const struct fb_placement *p, uint64_t key, uint64_t *draws)
{
    for (uint32_t i = 0; i < p->member_count; i++) {
        uint64_t hash = hash_of(&p->rows[i], key);
        uint64_t draw = p->is_even ? ~hash : draw_of(p, &p->rows[i], hash);
        draws[i] = draw != TAKEN ? draw : TAKEN - 1;
    }
}

/* ---- ranking ---- */

struct best {
    uint32_t member;
    uint64_t draw; /* TAKEN: there is none */
};

/* Equal draws go to the greater hash, as they would if draws were exact, and then to the lesser id. */
static inline void offer(const struct fb_placement *p, uint64_t key, struct best *best, uint32_t member,
                         uint64_t draw)
{
    if (draw > best->draw || draw == TAKEN)
        return;
    if (draw == best->draw && hash_of(&p->rows[member], key) <= hash_of(&p->rows[best->member], key))
        return;
    *best = (struct best){member, draw};
}

static struct best next_best(const struct fb_placement *p, uint64_t key, const uint64_t *draws,
                             const uint64_t *used_zones)
{
    struct best of_all = {0, TAKEN}, of_new_zones = {0, TAKEN};
    for (uint32_t i = 0; i < p->member_count; i++) {
        uint32_t zone = p->rows[i].zone;
        offer(p, key, &of_all, i, draws[i]);
        if (!(used_zones[zone / 64] >> zone % 64 & 1))
            offer(p, key, &of_new_zones, i, draws[i]);
    }
    return of_new_zones.draw != TAKEN ? of_new_zones : of_all;
}

/* ---- public ---- */

size_t fb_placement_bytes(uint32_t member_count)
{
    return sizeof(struct fb_placement) + member_count * sizeof(struct row);
}

int fb_placement_init(struct fb_placement *p, const struct fb_placement_member *members,
                      uint32_t member_count)
{
    if (member_count > FB_PLACEMENT_MEMBERS_MAX)
        return -EINVAL;
    p->member_count = member_count;
    p->is_even = true;
    for (uint32_t i = 0; i < member_count; i++) {
        const struct fb_placement_member *member = &members[i];
        if (member->weight < FB_PLACEMENT_WEIGHT_MIN || member->weight > FB_PLACEMENT_WEIGHT_MAX ||
            member->zone >= member_count)
            return -EINVAL;
        if (i > 0 && memcmp(members[i - 1].id, member->id, FB_PLACEMENT_ID_BYTES) >= 0)
            return -EINVAL;
        uint64_t words[2];
        fb_murmur3_x64_128(member->id, FB_PLACEMENT_ID_BYTES, 0, words);
        p->rows[i] = (struct row){words[0], (UINT64_C(1) << INVERSE_BITS) / member->weight, member->zone};
        p->is_even &= member->weight == members[0].weight;
    }
    for (uint32_t i = 0; !p->is_even && i <= TABLE_STEPS; i++)
        p->log2_table[i] = log2_of_step(i);
    return 0;
}

uint64_t fb_placement_key(const void *dataset, size_t dataset_bytes, const void *path, size_t path_bytes,
                          uint64_t run_number)
{
    uint64_t words[5], out[2];
    fb_murmur3_x64_128(dataset, dataset_bytes, 0, words);
    fb_murmur3_x64_128(path, path_bytes, 0, words + 2);
    words[4] = run_number;
    fb_murmur3_x64_128(words, sizeof words, 0, out);
    return out[0];
}

uint32_t fb_placement_rank(const struct fb_placement *p, uint64_t key, const uint8_t *is_skipped,
                           uint32_t count, uint32_t *out)
{
    uint64_t draws[FB_PLACEMENT_MEMBERS_MAX];
    uint64_t used_zones[FB_PLACEMENT_MEMBERS_MAX / 64] = {0};
    uint32_t written = 0;

    draw_all(p, key, draws);
    while (written < count) {
        struct best best = next_best(p, key, draws, used_zones);
        if (best.draw == TAKEN)
            break;
        uint32_t zone = p->rows[best.member].zone;
        draws[best.member] = TAKEN;
        used_zones[zone / 64] |= UINT64_C(1) << zone % 64;
        if (is_skipped == NULL || !is_skipped[best.member])
            out[written++] = best.member;
    }
    return written;
}
