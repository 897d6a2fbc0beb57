/* The index against a plain array: insertion, look-up, removal, splits, growth, and a page that is full. */
#include "store_fixture.h"

#define KEYS 100000u
#define QUOTA (16 * MIB)

static struct fixture f;

static uint64_t place_of(uint32_t number)
{
    return FB_PLACE(FB_SLOT_PRESENT, 0, 1, number, number, 1);
}

static int put(fb_store *s, const struct fb_key *key, uint32_t number)
{
    uint64_t old;
    return fb_index_put(s, key, place_of(number), FB_EXTENT(number & 0xffff, 0), NULL, NULL, &old);
}

static bool has(fb_store *s, const struct fb_key *key, uint32_t number)
{
    struct fb_found found;
    int r = fb_index_find(s, key, &found);
    CHECK(r == 0 || r == -ENOENT);
    if (r != 0)
        return false;
    CHECK_EQ(FB_PLACE_LOCATION(found.place), FB_PLACE_LOCATION(place_of(number)));
    CHECK_EQ(FB_EXTENT_LENGTH(found.extent), number & 0xffff);
    return true;
}

static void drop(fb_store *s, const struct fb_key *key, uint32_t number)
{
    CHECK_EQ(fb_index_swap(s, key->lo, key->check, place_of(number), 0), 0);
}

/* ---- against an array ---- */

struct census {
    uint8_t *seen;
    uint64_t count;
};

static void count_slot(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent)
{
    struct census *census = context;
    uint32_t low = FB_PLACE_UNIT(place);
    struct fb_key key = key_of_number(low);
    CHECK_EQ(key.lo, lo);
    CHECK_EQ(key.check, check);
    CHECK_EQ(FB_EXTENT_LENGTH(extent), low & 0xffff);
    CHECK_LT(low, KEYS);
    census->seen[low]++;
    census->count++;
}

static void compare(fb_store *s, const uint8_t *present)
{
    struct census census = {.seen = calloc(KEYS, 1)};
    uint64_t expected = 0, used = 0;
    uint32_t pages = atomic_load(&s->shared->page_count);
    CHECK(census.seen != NULL);
    for (uint32_t i = 0; i < KEYS; i++) {
        struct fb_key key = key_of_number(i);
        CHECK_EQ(has(s, &key, i), present[i] != 0);
        expected += present[i];
    }
    fb_index_visit(s, 0, pages, count_slot, &census);
    CHECK_EQ(census.count, expected);
    CHECK_BYTES_EQ(census.seen, present, KEYS);
    for (uint32_t page = 0; page < pages; page++)
        used += atomic_load(&s->metas[page].used);
    CHECK_EQ(used, expected);
    free(census.seen);
}

TEST(a_hundred_thousand_keys_come_and_go)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint8_t *present = calloc(KEYS, 1);
    CHECK(present != NULL);
    uint32_t pages_before = atomic_load(&s->shared->page_count);

    for (uint32_t i = 0; i < KEYS; i++) {
        struct fb_key key = key_of_number(i);
        CHECK_EQ(put(s, &key, i), 0);
        present[i] = 1;
    }
    CHECK_GT(atomic_load(&s->shared->page_count), pages_before);
    compare(s, present);

    for (uint32_t i = 0; i < KEYS; i++) {
        struct fb_key key = key_of_number(i);
        if (i * 2654435761u >> 31 == 0)
            continue;
        drop(s, &key, i);
        present[i] = 0;
    }
    compare(s, present);

    for (uint32_t i = 0; i < KEYS; i += 3) {
        struct fb_key key = key_of_number(i);
        CHECK_EQ(put(s, &key, i), 0);
        present[i] = 1;
    }
    compare(s, present);
    free(present);
    fixture_end_store(&f, s);
}

TEST(growth_is_seen_by_every_handle_and_kept_over_a_restart)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    for (uint32_t i = 0; i < KEYS / 2; i++) {
        struct fb_key key = key_of_number(i);
        CHECK_EQ(put(i % 2 ? a : b, &key, i), 0);
    }
    for (uint32_t i = 0; i < KEYS / 2; i++) {
        struct fb_key key = key_of_number(i);
        CHECK(has(i % 2 ? b : a, &key, i));
    }
    uint32_t pages = atomic_load(&a->shared->page_count);
    /* What the slots name was never written: let recovery not find it missing. */
    atomic_store(&a->segments[1].word, FB_WORD(FB_FREE, 0, 0, 0));
    fb_close(a);
    fb_close(b);

    fb_store *c = fixture_open(&f);
    CHECK_EQ(atomic_load(&c->shared->page_count), pages);
    fixture_end_store(&f, c);
}

/* ---- one slot ---- */

static bool refuse(fb_store *s, void *context, uint64_t old_place)
{
    (void)s;
    *(uint64_t *)context = old_place;
    return false;
}

TEST(a_put_tells_what_was_there_and_a_guard_refuses)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(1);
    uint64_t old = 7, asked = 7;

    CHECK_EQ(fb_index_put(s, &key, place_of(1), 1, NULL, NULL, &old), 0);
    CHECK_EQ(old, 0);
    CHECK_EQ(fb_index_put(s, &key, place_of(2), 2, NULL, NULL, &old), 0);
    CHECK_EQ(old, place_of(1));
    old = 7;
    CHECK_EQ(fb_index_put(s, &key, place_of(3), 3, refuse, &asked, &old), -ECANCELED);
    CHECK_EQ(asked, place_of(2));
    CHECK_EQ(old, 7);
    CHECK(has(s, &key, 2));
    CHECK_EQ(atomic_load(&s->metas[block_found(s, 1).page].used), 1);
    fixture_end_store(&f, s);
}

TEST(a_swap_needs_the_expected_location)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(1), absent = key_of_number(2);
    uint64_t old, pinned = (uint64_t)FB_SLOT_PINNED << 2;

    CHECK_EQ(put(s, &key, 1), 0);
    CHECK_EQ(fb_index_swap(s, key.lo, key.check, place_of(2), place_of(3)), -ENOENT);
    CHECK_EQ(fb_index_swap(s, absent.lo, absent.check, place_of(1), 0), -ENOENT);
    CHECK(has(s, &key, 1));
    /* Flags and verification are not part of where it is; pin and expiry stay. */
    CHECK_EQ(fb_index_put(s, &key, place_of(1) | pinned, FB_EXTENT(3, 77), NULL, NULL, &old), 0);
    CHECK_EQ(fb_index_swap(s, key.lo, key.check, place_of(1), place_of(3)), 0);
    CHECK(has(s, &key, 3));
    CHECK_EQ(FB_PLACE_FLAGS(block_found(s, 1).place), FB_SLOT_PINNED);
    CHECK_EQ(FB_EXTENT_EXPIRY(block_found(s, 1).extent), 77);
    CHECK_EQ(fb_index_swap(s, key.lo, key.check, place_of(3), 0), 0);
    CHECK(!has(s, &key, 3));
    fixture_end_store(&f, s);
}

/* ---- one page ---- */

/* Keys of a few home slots around the page's end, so that their run wraps. */
static struct fb_key crowded(uint32_t i)
{
    uint32_t last_home = UINT32_MAX - (i % 7) * (UINT32_MAX / FB_PAGE_SLOTS);
    return key_at(0, i % 3 ? last_home : i % 5, 1000 + i);
}

TEST(removal_keeps_every_other_key_of_a_run_that_wraps)
{
    enum { CROWD = 200, ROUNDS = 4000 };
    fb_store *s = fixture_begin_store(&f, QUOTA);
    bool present[CROWD] = {false};
    uint32_t state = 1;

    for (uint32_t round = 0; round < ROUNDS; round++) {
        state = state * 1664525u + 1013904223u;
        uint32_t i = (state >> 8) % CROWD;
        struct fb_key key = crowded(i);
        if (present[i])
            drop(s, &key, i);
        else
            CHECK_EQ(put(s, &key, i), 0);
        present[i] = !present[i];
        for (uint32_t other = 0; other < CROWD; other++) {
            struct fb_key k = crowded(other);
            CHECK_EQ(has(s, &k, other), present[other]);
        }
    }
    for (uint32_t i = 0; i < CROWD; i++)
        if (present[i]) {
            struct fb_key key = crowded(i);
            drop(s, &key, i);
        }
    uint32_t page = atomic_load(&s->directory[fb_index_entry(s, 0)]);
    CHECK_EQ(atomic_load(&s->metas[page].used), 0);
    for (uint32_t slot = 0; slot < FB_PAGE_SLOTS; slot++)
        CHECK_EQ(FB_PLACE_STATE(atomic_load(&fb_page_at(s, page)->slots[slot].place)), FB_SLOT_EMPTY);
    fixture_end_store(&f, s);
}

/* All of one directory entry: no split can part them. */
static struct fb_key inseparable(uint32_t i)
{
    return key_at(0x40000000u, i * 2654435761u, i + 1);
}

TEST(a_page_that_cannot_split_is_full_at_its_bound)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    for (uint32_t i = 0; i < FB_PAGE_FULL_AT; i++) {
        struct fb_key key = inseparable(i);
        CHECK_EQ(put(s, &key, i), 0);
    }
    uint32_t pages = atomic_load(&s->shared->page_count);
    struct fb_key one_more = inseparable(FB_PAGE_FULL_AT), first = inseparable(0);
    CHECK_EQ(put(s, &one_more, FB_PAGE_FULL_AT), -ENOSPC);
    CHECK_EQ(atomic_load(&s->shared->page_count), pages);
    for (uint32_t i = 0; i < FB_PAGE_FULL_AT; i++) {
        struct fb_key key = inseparable(i);
        CHECK(has(s, &key, i));
    }
    /* Its lock is not left behind, what is there can be replaced, and room is room again. */
    CHECK_EQ(put(s, &first, 5), 0);
    drop(s, &first, 5);
    CHECK_EQ(put(s, &one_more, FB_PAGE_FULL_AT), 0);
    CHECK_EQ(put(s, &first, 0), -ENOSPC);
    fixture_end_store(&f, s);
}

TEST(an_index_at_its_limit_fills_its_pages_further)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    /* As if no page were left to grow by. */
    s->super->page_count_max = atomic_load(&s->shared->page_count);
    uint32_t refused = 0, admitted = 0;
    for (uint32_t i = 0; i < 3 * FB_PAGES_FIRST_BITS * 8 * 2000; i++) {
        struct fb_key key = key_of_number(i);
        int r = put(s, &key, i);
        CHECK(r == 0 || r == -ENOSPC);
        admitted += r == 0;
        refused += r != 0;
    }
    uint32_t pages = atomic_load(&s->shared->page_count);
    CHECK_EQ(pages, s->super->page_count_max);
    CHECK_EQ(admitted, pages * FB_PAGE_FULL_AT);
    CHECK_GT(refused, 0);
    fixture_kill(s);
    fixture_end(&f);
}

/* ---- taking over what is there ---- */

static int adopt(fb_store *s)
{
    return fb_index_adopt(s, atomic_load(&s->shared->page_count));
}

TEST(adoption_rebuilds_the_directory_and_the_counts)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    for (uint32_t i = 0; i < KEYS; i++) {
        struct fb_key key = key_of_number(i);
        CHECK_EQ(put(s, &key, i), 0);
    }
    uint32_t used = atomic_load(&s->metas[3].used);
    atomic_store(&s->metas[3].used, 0);
    CHECK_EQ(adopt(s), 0);
    CHECK_EQ(atomic_load(&s->metas[3].used), used);
    for (uint32_t i = 0; i < KEYS; i += 97) {
        struct fb_key key = key_of_number(i);
        CHECK(has(s, &key, i));
    }
    fixture_kill(s);
    fixture_end(&f);
}

TEST(adoption_refuses_pages_that_do_not_cover_the_directory_once)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_page *page = fb_page_at(s, 5);
    uint32_t first = atomic_load(&page->first), span = atomic_load(&page->span);
    CHECK_EQ(adopt(s), 0);

    atomic_store(&page->span, span - 1); /* an entry that leads nowhere */
    CHECK_EQ(adopt(s), -EBADMSG);
    atomic_store(&page->span, span + 1); /* one that two pages claim */
    CHECK_EQ(adopt(s), -EBADMSG);
    atomic_store(&page->span, UINT32_MAX); /* beyond the directory */
    CHECK_EQ(adopt(s), -EBADMSG);
    atomic_store(&page->span, 0); /* a page missing altogether */
    CHECK_EQ(adopt(s), -EBADMSG);
    atomic_store(&page->span, span);
    atomic_store(&page->first, first + span); /* one claimed twice, one never */
    CHECK_EQ(adopt(s), -EBADMSG);
    atomic_store(&page->first, first);

    page->number = 6;
    CHECK_EQ(adopt(s), -EBADMSG);
    page->number = 5;
    page->magic++;
    CHECK_EQ(adopt(s), -EBADMSG);
    page->magic--;
    CHECK_EQ(adopt(s), 0);
    fixture_kill(s);
    fixture_end(&f);
}

/* A page without one empty slot would make every probe in it go round for ever. */
TEST(adoption_refuses_a_page_that_is_too_full)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    for (uint32_t slot = 0; slot < FB_PAGE_SLOTS; slot++)
        atomic_store(&fb_page_at(s, 2)->slots[slot].place, place_of(slot));
    CHECK_EQ(adopt(s), -EBADMSG);
    fixture_kill(s);
    fixture_end(&f);
}

TEST(a_directory_entry_that_names_no_page_is_a_miss_and_admits_nothing)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 1, 0, 100));
    struct fb_key key = key_of_number(1);
    uint32_t entry = fb_index_entry(s, key.lo), page = atomic_load(&s->directory[entry]);
    const uint32_t wrong[] = {atomic_load(&s->shared->page_count), UINT32_MAX};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct fb_hit hit;
        atomic_store(&s->directory[entry], wrong[i]);
        CHECK_EQ(fb_get(s, &key, NOBODY, false, &hit), -ENOENT);
        CHECK(!block_put(s, 1, 1, 100));
        CHECK_EQ(fb_delete(s, &key), -ETIMEDOUT);
    }
    atomic_store(&s->directory[entry], page);
    blocks_hit(s, 1, 2, 100);
    fixture_kill(s);
    fixture_end(&f);
}

CHECK_MAIN
