/* The table of recent look-ups: what is found is what was put last, within the bound, and what is used stays.
 */
#include "forebay/recent.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

#define KIB (UINT64_C(1) << 10)
#define MIB (UINT64_C(1) << 20)

static struct fb_recent *table_of(uint64_t bytes_max)
{
    struct fb_recent *t;
    CHECK_EQ(fb_recent_open(bytes_max, &t), 0);
    return t;
}

static struct fb_recent_name name_of(const struct fb_recent *t, uint64_t number)
{
    return fb_recent_name_of(t, &number, sizeof number, 1);
}

/* A row whose length and bytes follow from two numbers, so that any other's is told from it. */
static uint32_t fill_row(uint8_t *row, uint64_t number, uint64_t version)
{
    uint32_t length = 16 + (uint32_t)((number * 7 + version * 3) % (FB_RECENT_ROW_BYTES_MAX - 15));
    for (uint32_t i = 0; i < length; i++)
        row[i] = (uint8_t)(number * 31 + version * 17 + i);
    memcpy(row, &number, sizeof number);
    memcpy(row + sizeof number, &version, sizeof version);
    return length;
}

static void put(struct fb_recent *t, uint64_t number, uint64_t version)
{
    uint8_t row[FB_RECENT_ROW_BYTES_MAX];
    struct fb_recent_name name = name_of(t, number);
    uint32_t length = fill_row(row, number, version);
    CHECK_EQ(fb_recent_put(t, &name, version, row, length), 0);
    CHECK_LE(fb_recent_bytes(t), 64 * MIB);
}

/* Whether the number is there; if it is, then as it was put with that version. */
static bool is_kept(struct fb_recent *t, uint64_t number, uint64_t version)
{
    uint8_t row[FB_RECENT_ROW_BYTES_MAX];
    struct fb_recent_name name = name_of(t, number);
    struct fb_recent_row found;
    if (!fb_recent_get(t, &name, &found))
        return false;
    CHECK_EQ(found.stamp, version);
    CHECK_EQ(found.length_bytes, fill_row(row, number, version));
    CHECK_EQ(memcmp(found.bytes, row, found.length_bytes), 0);
    return true;
}

static uint64_t count_kept(struct fb_recent *t, uint64_t count, uint64_t version)
{
    uint64_t kept = 0;
    for (uint64_t number = 0; number < count; number++)
        kept += is_kept(t, number, version);
    return kept;
}

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

TEST(bounds_are_refused_outside_of_the_limits)
{
    struct fb_recent *t;
    CHECK_EQ(fb_recent_open(FB_RECENT_BYTES_MIN - 1, &t), -EINVAL);
    CHECK_EQ(fb_recent_open(FB_RECENT_BYTES_MAX + 1, &t), -EINVAL);
    fb_recent_close(table_of(FB_RECENT_BYTES_MAX));
}

TEST(what_was_put_last_is_found)
{
    struct fb_recent *t = table_of(MIB);
    CHECK(!is_kept(t, 1, 0));
    CHECK_EQ(fb_recent_bytes(t), 0);
    for (uint64_t version = 0; version < 5; version++) {
        put(t, 1, version);
        CHECK(is_kept(t, 1, version));
        CHECK_EQ(fb_recent_count(t), 1);
    }
    CHECK(!is_kept(t, 2, 0));
    struct fb_recent_name name = name_of(t, 1);
    fb_recent_forget(t, &name);
    fb_recent_forget(t, &name);
    CHECK(!is_kept(t, 1, 4));
    CHECK_EQ(fb_recent_count(t), 0);
    put(t, 1, 9);
    fb_recent_clear(t);
    CHECK(!is_kept(t, 1, 9));
    CHECK_EQ(fb_recent_bytes(t), 0);
    put(t, 1, 10);
    CHECK(is_kept(t, 1, 10));
    fb_recent_close(t);
}

TEST(names_differ_between_tables_texts_and_widths)
{
    struct fb_recent *one = table_of(MIB), *other = table_of(MIB);
    struct fb_recent_name a = fb_recent_name_of(one, "ab", 2, 1), b = fb_recent_name_of(one, "ab", 2, 2);
    struct fb_recent_name c = fb_recent_name_of(one, "ac", 2, 1), d = fb_recent_name_of(other, "ab", 2, 1);
    struct fb_recent_name again = fb_recent_name_of(one, "ab", 2, 1);
    CHECK(a.lo == again.lo && a.hi == again.hi);
    CHECK(a.hi != b.hi);
    CHECK(a.lo != c.lo && a.hi != c.hi);
    CHECK(a.lo != d.lo && a.hi != d.hi);
    fb_recent_close(one);
    fb_recent_close(other);
}

TEST(the_bound_is_kept_and_what_is_used_stays)
{
    static const uint64_t bounds[] = {FB_RECENT_BYTES_MIN, FB_RECENT_BYTES_MIN + 4097, 300 * KIB, 2 * MIB};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct fb_recent *t = table_of(bounds[i]);
        uint64_t rows = bounds[i] / 32;
        for (uint64_t number = 1; number <= rows; number++) {
            put(t, 0, 7);
            CHECK(is_kept(t, 0, 7));
            put(t, number, 7);
            CHECK(is_kept(t, number, 7));
            CHECK_LE(fb_recent_bytes(t), bounds[i]);
        }
        /* Full, to the last chunk. */
        CHECK(fb_recent_bytes(t) + bounds[i] / 8 > bounds[i]);
        uint64_t kept = count_kept(t, rows + 1, 7);
        CHECK_EQ(kept, fb_recent_count(t));
        CHECK(kept > bounds[i] / 300);
        CHECK(kept < rows);
        fb_recent_close(t);
    }
}

/* What is asked for again before as much as the table holds was put has its second chance. */
TEST(a_small_working_set_survives_a_scan)
{
    enum { HOT = 100, SCANNED = 20000 };
    struct fb_recent *t = table_of(256 * KIB);
    for (uint64_t number = 0; number < HOT; number++)
        put(t, number, 1);
    uint64_t asked = 0, found = 0;
    for (uint64_t number = 0; number < SCANNED; number++) {
        put(t, 1000 + number, 1);
        asked++;
        found += is_kept(t, number % HOT, 1);
    }
    CHECK_EQ(asked, found);
    fb_recent_close(t);
}

/* Rows of 38 bytes, as most are: at half load all find room in their buckets, but for one in a thousand. */
TEST(as_many_are_kept_as_there_is_room_for)
{
    enum { COUNT = 131072 };
    struct fb_recent *t = table_of(12 * MIB);
    uint8_t row[38] = {0};
    for (uint64_t number = 0; number < COUNT; number++) {
        struct fb_recent_name name = name_of(t, number);
        CHECK_EQ(fb_recent_put(t, &name, 0, row, sizeof row), 0);
    }
    CHECK(fb_recent_count(t) > COUNT - COUNT / 1000);
    fb_recent_close(t);
}

TEST(any_order_of_calls_gives_what_was_put_last_or_nothing)
{
    enum { NUMBERS = 600, STEPS = 200000 };
    static uint64_t versions[NUMBERS];
    static const uint64_t bounds[] = {FB_RECENT_BYTES_MIN, 200 * KIB, MIB};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        struct fb_recent *t = table_of(bounds[i]);
        uint64_t state = 30 + i;
        memset(versions, 0, sizeof versions); /* 0: never put, or forgotten */
        for (uint64_t step = 1; step <= STEPS; step++) {
            uint64_t number = next_random(&state) % NUMBERS, kind = next_random(&state) % 1000;
            struct fb_recent_name name = name_of(t, number);
            if (kind < 400) {
                versions[number] = step;
                put(t, number, step);
            } else if (kind < 420) {
                versions[number] = 0;
                fb_recent_forget(t, &name);
            } else if (kind == 999 && step % 7 == 0) {
                memset(versions, 0, sizeof versions);
                fb_recent_clear(t);
            } else {
                CHECK_LE(is_kept(t, number, versions[number]), versions[number] != 0);
            }
            CHECK_LE(fb_recent_bytes(t), bounds[i]);
        }
        uint64_t kept = 0;
        for (uint64_t number = 0; number < NUMBERS; number++)
            kept += is_kept(t, number, versions[number]);
        CHECK_EQ(kept, fb_recent_count(t));
        fb_recent_close(t);
    }
}

TEST(after_a_fork_each_side_has_its_own)
{
    struct fb_recent *t = table_of(MIB);
    put(t, 1, 1);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(is_kept(t, 1, 1));
        put(t, 1, 2);
        put(t, 2, 2);
        _exit(is_kept(t, 1, 2) ? 0 : 1);
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    CHECK(is_kept(t, 1, 1));
    CHECK(!is_kept(t, 2, 2));
    fb_recent_close(t);
}

CHECK_MAIN
