/* Placement gives the answers that it always gave: whoever changes one of them moves data in every group. */
#include "forebay/placement.h"

#include <errno.h>

#include "check.h"

#define MEMBERS 8
#define ONE FB_PLACEMENT_WEIGHT_ONE

static const uint32_t even[MEMBERS] = {ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE};
static const uint32_t uneven[MEMBERS] = {
    FB_PLACEMENT_WEIGHT_MIN, ONE / 2, ONE, ONE, 2 * ONE, 3 * ONE + 1, 40 * ONE, FB_PLACEMENT_WEIGHT_MAX};
static const uint32_t one_zone[MEMBERS] = {0};
static const uint32_t three_zones[MEMBERS] = {0, 0, 0, 1, 1, 1, 2, 2};

/* Members by rank: of even and uneven weights in one zone, then the same in three. */
static const struct answer {
    uint64_t key;
    const char *ranks[4];
} answers[] = {
    {0x0000000000000000, {"51632470", "76543120", "51632470", "75164320"}},
    {0x0000000000000001, {"52170463", "75621430", "52710463", "75261430"}},
    {0xffffffffffffffff, {"51273604", "75612340", "51723604", "75162340"}},
    {0x2f7318b30a179863, {"26147530", "76245130", "26417530", "72465130"}},
    {0xf2a74de452e6b438, {"27135460", "72653410", "27315460", "72563410"}},
    {0x4164d8399f767c45, {"05612374", "76523140", "05612374", "75263140"}},
    {0x5bc8fbbcbde5c099, {"46705132", "76453120", "46075132", "74165320"}},
    {0xb0c11fdecb91ce37, {"36410752", "76345120", "36140752", "73164520"}},
    {0xd76d4330f1446bea, {"27536401", "72653410", "27536401", "72563410"}},
    {0xa6eb8c9ebd69fe29, {"70154632", "76541320", "70514632", "75164320"}},
    {0x87b0b125ec1d7da0, {"14052673", "71645230", "14605273", "71465230"}},
    {0xd7210dff076ce2ef, {"20714635", "76245310", "27401635", "72465310"}},
};

static const struct {
    const char *dataset, *path;
    uint64_t run_number, key;
} keys[] = {
    {"", "", 0, 0x890914c992ae5a5b},
    {"d", "a/b", 3, 0x4c5fc926d04bb935},
    {"images", "train/n01440764/shard-00017.tar", 0, 0x2f7318b30a179863},
    {"images", "train/n01440764/shard-00017.tar", 1, 0x0a0fed26a4f76abc},
};

static void describe(struct fb_placement_member *members, const uint32_t *weights, const uint32_t *zones,
                     uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        memset(members[i].id, (int)(0x11 * (i + 1)), FB_PLACEMENT_ID_BYTES);
        members[i].weight = weights[i];
        members[i].zone = zones[i];
    }
}

static struct fb_placement *place(const uint32_t *weights, const uint32_t *zones)
{
    struct fb_placement_member members[MEMBERS];
    struct fb_placement *p = malloc(fb_placement_bytes(MEMBERS));
    CHECK(p != NULL);
    describe(members, weights, zones, MEMBERS);
    CHECK_EQ(fb_placement_init(p, members, MEMBERS), 0);
    return p;
}

static void ranks_of(const struct fb_placement *p, uint64_t key, const uint8_t *is_skipped,
                     char text[MEMBERS + 1])
{
    uint32_t out[MEMBERS];
    uint32_t count = fb_placement_rank(p, key, is_skipped, MEMBERS, out);
    CHECK_LE(count, MEMBERS);
    for (uint32_t i = 0; i < count; i++)
        text[i] = (char)('0' + out[i]);
    text[count] = 0;
}

TEST(keys_are_what_they_always_were)
{
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        CHECK_EQ(fb_placement_key(keys[i].dataset, strlen(keys[i].dataset), keys[i].path,
                                  strlen(keys[i].path), keys[i].run_number),
                 keys[i].key);
    CHECK_EQ(fb_placement_key(NULL, 0, NULL, 0, 0), keys[0].key);
}

TEST(members_are_what_they_always_were)
{
    struct fb_placement *placements[] = {place(even, one_zone), place(uneven, one_zone),
                                         place(even, three_zones), place(uneven, three_zones)};
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        for (int kind = 0; kind < 4; kind++) {
            char text[MEMBERS + 1];
            ranks_of(placements[kind], answers[i].key, NULL, text);
            CHECK_STR_EQ(text, answers[i].ranks[kind]);
        }
    }
    for (int kind = 0; kind < 4; kind++)
        free(placements[kind]);
}

/* The one weight that differs belongs to a member that is left out: all others are in the order of even ones,
 * though they were drawn the long way. */
TEST(the_short_way_for_even_weights_gives_the_same_order)
{
    uint32_t nearly_even[MEMBERS] = {ONE, ONE, ONE, ONE, ONE, ONE, ONE, ONE + 1};
    struct fb_placement *quick = place(even, one_zone), *slow = place(nearly_even, one_zone);
    const uint8_t is_skipped[MEMBERS] = {0, 0, 0, 0, 0, 0, 0, 1};

    for (uint64_t i = 0; i < 200000; i++) {
        char text[MEMBERS + 1], expected[MEMBERS + 1];
        uint64_t key = i * 0x9e3779b97f4a7c15;
        ranks_of(slow, key, is_skipped, text);
        ranks_of(quick, key, is_skipped, expected);
        CHECK_STR_EQ(text, expected);
    }
    free(quick);
    free(slow);
}

TEST(fewer_are_written_than_asked_for_and_never_more)
{
    struct fb_placement *p = place(uneven, three_zones);
    uint32_t out[MEMBERS + 1];
    for (uint32_t count = 0; count <= MEMBERS + 1; count++) {
        memset(out, 0xff, sizeof out);
        uint32_t written = fb_placement_rank(p, count, NULL, count, out);
        CHECK_EQ(written, count < MEMBERS ? count : MEMBERS);
        for (uint32_t i = written; i <= MEMBERS; i++)
            CHECK_EQ(out[i], UINT32_MAX);
    }
    const uint8_t all[MEMBERS] = {1, 1, 1, 1, 1, 1, 1, 1};
    CHECK_EQ(fb_placement_rank(p, 1, all, MEMBERS, out), 0);
    free(p);
}

TEST(nobody_owns_anything_in_an_empty_group)
{
    struct fb_placement *p = malloc(fb_placement_bytes(0));
    uint32_t out[1];
    CHECK(p != NULL);
    CHECK_EQ(fb_placement_init(p, NULL, 0), 0);
    CHECK_EQ(fb_placement_rank(p, 1, NULL, 1, out), 0);
    free(p);
}

TEST(as_many_members_as_there_may_be)
{
    uint32_t count = FB_PLACEMENT_MEMBERS_MAX;
    struct fb_placement_member *members = calloc(count + 1, sizeof *members);
    struct fb_placement *p = malloc(fb_placement_bytes(count));
    uint32_t *out = malloc(count * sizeof *out);
    bool *seen = calloc(count, sizeof *seen);
    CHECK(members != NULL && p != NULL && out != NULL && seen != NULL);
    for (uint32_t i = 0; i <= count; i++) {
        members[i].id[0] = (uint8_t)(i >> 8);
        members[i].id[1] = (uint8_t)i;
        members[i].weight = ONE + i;
        members[i].zone = i % count;
    }
    CHECK_EQ(fb_placement_init(p, members, count + 1), -EINVAL);
    CHECK_EQ(fb_placement_init(p, members, count), 0);
    CHECK_EQ(fb_placement_rank(p, 42, NULL, count, out), count);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_LT(out[i], count);
        CHECK(!seen[out[i]]);
        seen[out[i]] = true;
    }
    free(members);
    free(p);
    free(out);
    free(seen);
}

TEST(what_cannot_be_placed_is_refused)
{
    struct fb_placement_member members[MEMBERS];
    struct fb_placement *p = malloc(fb_placement_bytes(MEMBERS));
    CHECK(p != NULL);

    const uint32_t wrong_weights[] = {0, FB_PLACEMENT_WEIGHT_MIN - 1, FB_PLACEMENT_WEIGHT_MAX + 1,
                                      UINT32_MAX};
    for (int i = 0; i < 4; i++) {
        describe(members, even, one_zone, MEMBERS);
        members[MEMBERS - 1].weight = wrong_weights[i];
        CHECK_EQ(fb_placement_init(p, members, MEMBERS), -EINVAL);
    }
    describe(members, even, one_zone, MEMBERS);
    members[0].zone = MEMBERS;
    CHECK_EQ(fb_placement_init(p, members, MEMBERS), -EINVAL);
    describe(members, even, one_zone, MEMBERS);
    memcpy(members[1].id, members[0].id, FB_PLACEMENT_ID_BYTES);
    CHECK_EQ(fb_placement_init(p, members, MEMBERS), -EINVAL);
    members[0].id[FB_PLACEMENT_ID_BYTES - 1]++;
    CHECK_EQ(fb_placement_init(p, members, MEMBERS), -EINVAL);
    free(p);
}

CHECK_MAIN
