/* Pages whose writer died between any two of its stores: what the next to lock them finds, and mends. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "page.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define CROWD 12u
#define HOME_LO 0xfff00000u /* home slot 2045: a run from here wraps */

static struct fixture f;

static uint64_t place_of(uint32_t number)
{
    return FB_PLACE(FB_SLOT_PRESENT, 0, 1, number, number, 1);
}

static void put(fb_store *s, const struct fb_key *key, uint32_t number)
{
    uint64_t old;
    CHECK_EQ(fb_index_put(s, key, place_of(number), FB_EXTENT(number, 0), NULL, NULL, &old), 0);
}

static bool has(fb_store *s, const struct fb_key *key, uint32_t number)
{
    struct fb_found found;
    int r = fb_index_find(s, key, &found);
    CHECK(r == 0 || r == -ENOENT);
    CHECK(r != 0 || (found.place == place_of(number) && FB_EXTENT_LENGTH(found.extent) == number));
    return r == 0;
}

static void drop(fb_store *s, const struct fb_key *key)
{
    struct fb_found found;
    CHECK_EQ(fb_index_find(s, key, &found), 0);
    CHECK_EQ(fb_index_swap(s, key->lo, key->check, found.place, 0), 0);
}

static struct fb_key crowded(uint32_t i)
{
    return key_at(0, HOME_LO + i, 100 + i);
}

/* Every entry leads to one page that covers it; every slot can be found, once; the counts are right. */
static void check_structure(fb_store *s)
{
    uint32_t entries = FB_INDEX_ROOTS << s->super->directory_bits, covered = 0;
    for (uint32_t i = 0; i < entries; i++) {
        struct fb_page *p = fb_page_at(s, atomic_load(&s->directory[i]));
        CHECK_LT(i - atomic_load(&p->first), atomic_load(&p->span));
    }
    for (uint32_t page = 0; page < atomic_load(&s->shared->page_count); page++) {
        struct fb_page *p = fb_page_at(s, page);
        uint32_t used = 0, span = atomic_load(&p->span);
        covered += span;
        for (uint32_t i = 0; span != 0 && i < FB_PAGE_SLOTS; i++) {
            uint32_t state = FB_PLACE_STATE(atomic_load(&p->slots[i].place));
            uint64_t lo = atomic_load(&p->slots[i].lo);
            used += state != FB_SLOT_EMPTY;
            CHECK_NE(state, FB_SLOT_MOVING);
            if (state == FB_SLOT_EMPTY)
                continue;
            CHECK_LT(fb_index_entry(s, lo) - atomic_load(&p->first), span);
            CHECK_EQ(fb_page_find(s, page, lo, atomic_load(&p->slots[i].check)), i);
        }
        CHECK(span == 0 || used == atomic_load(&s->metas[page].used));
        CHECK_EQ(atomic_load(&s->metas[page].sequence) & 1u, 0);
        CHECK_EQ(atomic_load(&s->metas[page].lock), 0);
    }
    CHECK_EQ(covered, entries);
}

/* The page is left as by a writer that died in it; then somebody needs it. */
static void abandon_and_mend(fb_store *s, uint32_t page, uint32_t dead, uint64_t lo)
{
    struct fb_page_meta *meta = &s->metas[page];
    uint32_t locked;
    atomic_store(&meta->sequence, atomic_load(&meta->sequence) | 1u);
    atomic_store(&meta->lock, dead);
    CHECK_EQ(fb_index_lock(s, lo, &locked), 0);
    CHECK_EQ(locked, page);
    fb_index_unlock(s, page);
    check_structure(s);
}

static uint32_t word_of_a_dead(void)
{
    fb_store *victim = fixture_open(&f);
    uint32_t word = victim->me;
    fixture_kill(victim);
    return word;
}

/* ---- a removal, cut short after any number of its stores ---- */

struct half_removal {
    struct fb_slot *slots;
    int stores_left;
};

static void step(struct half_removal *h, _Atomic uint64_t *word, uint64_t value)
{
    if (h->stores_left-- > 0)
        atomic_store(word, value);
}

static uint32_t distance(uint32_t from, uint32_t to)
{
    return (to + FB_PAGE_SLOTS - from) % FB_PAGE_SLOTS;
}

/* The stores of fb_page_remove in their order. */
static void remove_in_part(struct half_removal *h, uint32_t slot)
{
    uint32_t hole = slot;
    for (uint32_t next = (slot + 1) % FB_PAGE_SLOTS;; next = (next + 1) % FB_PAGE_SLOTS) {
        struct fb_slot *from = &h->slots[next], *to = &h->slots[hole];
        if (FB_PLACE_STATE(atomic_load(&from->place)) == FB_SLOT_EMPTY || h->stores_left <= 0)
            break;
        uint32_t home = (uint32_t)((atomic_load(&from->lo) & 0xffffffffu) * FB_PAGE_SLOTS >> 32);
        if (distance(home, next) < distance(hole, next))
            continue;
        step(h, &to->place, FB_SLOT_MOVING);
        step(h, &to->lo, atomic_load(&from->lo));
        step(h, &to->check, atomic_load(&from->check));
        step(h, &to->extent, atomic_load(&from->extent));
        step(h, &to->place, atomic_load(&from->place));
        hole = next;
    }
    step(h, &h->slots[hole].place, 0);
}

static void cut_short(fb_store *s, uint32_t dead, uint32_t victim, int stores)
{
    struct fb_key keys[CROWD];
    uint32_t page = atomic_load(&s->directory[fb_index_entry(s, 0)]), left = 0;
    for (uint32_t i = 0; i < CROWD; i++) {
        keys[i] = crowded(i);
        put(s, &keys[i], i);
    }
    struct half_removal half = {fb_page_at(s, page)->slots, stores};
    remove_in_part(&half, (uint32_t)fb_page_find(s, page, keys[victim].lo, keys[victim].check));
    abandon_and_mend(s, page, dead, keys[0].lo);
    for (uint32_t i = 0; i < CROWD; i++) {
        bool there = has(s, &keys[i], i);
        CHECK(there || i == victim);
        left += there;
        if (there)
            drop(s, &keys[i]);
    }
    /* Once the first store is made the victim is gone; before that it is there. */
    CHECK_EQ(left, stores == 0 ? CROWD : CROWD - 1);
    CHECK_EQ(atomic_load(&s->metas[page].used), 0);
}

TEST(a_removal_cut_short_loses_no_other_key)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t dead = word_of_a_dead();
    for (uint32_t victim = 0; victim < CROWD; victim += 3)
        for (int stores = 0; stores <= (int)(CROWD - victim - 1) * 5 + 1; stores++)
            cut_short(s, dead, victim, stores);
    CHECK_GT(store_counter(s, FB_C_PAGE_REPAIRS), 0);
    CHECK_EQ(store_counter(s, FB_C_PAGE_REPAIRS), store_counter(s, FB_C_LOCK_TAKEOVERS));
    fixture_kill(s);
    fixture_end(&f);
}

/* ---- other writes, cut short ---- */

TEST(an_addition_cut_short_leaves_nothing)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t dead = word_of_a_dead(), page = atomic_load(&s->directory[fb_index_entry(s, 0)]);
    struct fb_key key = key_at(0, 0, 5);
    struct fb_slot *slot = &fb_page_at(s, page)->slots[0];
    atomic_store(&slot->lo, key.lo);
    atomic_store(&slot->check, key.check);
    abandon_and_mend(s, page, dead, key.lo);
    CHECK(!has(s, &key, 9));
    /* Killed after its last store, before it was counted: the slot counts. */
    atomic_store(&slot->extent, FB_EXTENT(9, 0));
    atomic_store(&slot->place, place_of(9));
    abandon_and_mend(s, page, dead, key.lo);
    CHECK(has(s, &key, 9));
    CHECK_EQ(atomic_load(&s->metas[page].used), 1);
    fixture_kill(s);
    fixture_end(&f);
}

TEST(a_slot_that_was_being_replaced_is_dropped_and_hides_none)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t dead = word_of_a_dead(), page = atomic_load(&s->directory[fb_index_entry(s, 0)]);
    struct fb_key keys[CROWD];
    for (uint32_t i = 0; i < CROWD; i++) {
        keys[i] = crowded(i);
        put(s, &keys[i], i);
    }
    struct fb_slot *slots = fb_page_at(s, page)->slots;
    struct fb_slot *slot = &slots[fb_page_find(s, page, keys[3].lo, keys[3].check)];
    atomic_store(&slot->place, FB_SLOT_MOVING);
    atomic_store(&slot->extent, FB_EXTENT(1234, 0));
    for (uint32_t i = 0; i < CROWD; i++)
        CHECK_EQ(has(s, &keys[i], i), i != 3);
    abandon_and_mend(s, page, dead, keys[0].lo);
    for (uint32_t i = 0; i < CROWD; i++)
        CHECK_EQ(has(s, &keys[i], i), i != 3);
    CHECK_EQ(atomic_load(&s->metas[page].used), CROWD - 1);
    fixture_kill(s);
    fixture_end(&f);
}

/* A reader that meets the page of a dead writer mends it rather than missing for ever. */
TEST(a_reader_mends_the_page_of_a_dead_writer)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 1, 0, 1000));
    struct fb_page_meta *meta = &s->metas[block_found(s, 1).page];
    atomic_store(&meta->lock, word_of_a_dead());
    atomic_store(&meta->sequence, atomic_load(&meta->sequence) | 1u);
    CHECK(block_hit(s, 1, 0, 1000));
    CHECK_EQ(store_counter(s, FB_C_PAGE_REPAIRS), 1);
    check_structure(s);
    fixture_end_store(&f, s);
}

/* ---- splits, cut short ---- */

static struct fb_key spread(uint32_t i)
{
    /* All of the first page's entries: lo below 1/24 of its range. */
    return key_at(i % 0x0aaaaaaau * 2654435761u % 0x0aaaaaaau, i * 2246822519u, i + 1);
}

static void fill_to_split(fb_store *s)
{
    for (uint32_t i = 0; i < FB_PAGE_SPLIT_AT; i++) {
        struct fb_key key = spread(i);
        put(s, &key, i);
    }
    CHECK_EQ(atomic_load(&s->metas[0].used), FB_PAGE_SPLIT_AT);
}

static void die_splitting(const char *failpoint)
{
    char armed[64];
    int status;
    snprintf(armed, sizeof armed, "%s=kill@1", failpoint);
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0) {
        setenv("FOREBAY_FAILPOINT", armed, 1);
        fb_store *s = fixture_open(&f);
        struct fb_key key = spread(FB_PAGE_SPLIT_AT);
        put(s, &key, FB_PAGE_SPLIT_AT);
        _exit(1);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void expect_split_mended(fb_store *s)
{
    uint32_t page, pages = atomic_load(&s->shared->page_count);
    for (uint32_t i = 0; i < FB_PAGE_SPLIT_AT; i++) {
        struct fb_key key = spread(i);
        CHECK_EQ(fb_index_lock(s, key.lo, &page), 0);
        fb_index_unlock(s, page);
        CHECK(has(s, &key, i));
    }
    check_structure(s);
    for (uint32_t i = FB_PAGE_SPLIT_AT; i < 2 * FB_PAGE_SPLIT_AT; i++) {
        struct fb_key key = spread(i);
        put(s, &key, i);
    }
    for (uint32_t i = 0; i < 2 * FB_PAGE_SPLIT_AT; i++) {
        struct fb_key key = spread(i);
        CHECK(has(s, &key, i));
    }
    check_structure(s);
    CHECK_GE(atomic_load(&s->shared->page_count), pages);
    CHECK_EQ(atomic_load(&s->shared->spare_page), 0);
}

static void split_dies_at(const char *failpoint, void (*further)(fb_store *s))
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_to_split(s);
    die_splitting(failpoint);
    CHECK_NE(atomic_load(&s->metas[0].split_to), 0);
    if (further != NULL)
        further(s);
    expect_split_mended(s);
    fixture_kill(s);
    fixture_end(&f);
}

TEST(a_split_that_died_before_copying_is_undone)
{
    split_dies_at("split.reset", NULL);
}

TEST(a_split_that_died_before_it_was_complete_is_undone)
{
    split_dies_at("split.copied", NULL);
}

TEST(a_split_that_died_before_purging_is_finished)
{
    split_dies_at("split.directory", NULL);
}

TEST(a_split_that_died_after_purging_is_finished)
{
    split_dies_at("split.purged", NULL);
}

/* Between the failpoints: complete, and half of the directory leads to the new page. */
static void publish_half(fb_store *s)
{
    uint32_t fresh = atomic_load(&s->metas[0].split_to) - 1;
    struct fb_page *q = fb_page_at(s, fresh);
    atomic_store(&s->metas[0].split_stage, 2);
    for (uint32_t i = 0; i < atomic_load(&q->span) / 2; i++)
        atomic_store(&s->directory[atomic_load(&q->first) + i], fresh);
}

TEST(a_split_that_died_in_mid_directory_is_finished)
{
    split_dies_at("split.copied", publish_half);
}

/* ... and a purge that was cut short in the middle of a shift. */
static void purge_half(fb_store *s)
{
    struct fb_slot *slots = fb_page_at(s, 0)->slots;
    uint32_t first = 100;
    while (FB_PLACE_STATE(atomic_load(&slots[first].place)) == FB_SLOT_EMPTY)
        first++;
    struct half_removal half = {slots, 3};
    remove_in_part(&half, first);
    atomic_store(&s->metas[0].sequence, atomic_load(&s->metas[0].sequence) | 1u);
}

TEST(a_split_undone_in_the_middle_of_a_shift_keeps_the_rest)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_to_split(s);
    die_splitting("split.directory");
    purge_half(s);
    uint32_t page, lost = 0;
    for (uint32_t i = 0; i < FB_PAGE_SPLIT_AT; i++) {
        struct fb_key key = spread(i);
        CHECK_EQ(fb_index_lock(s, key.lo, &page), 0);
        fb_index_unlock(s, page);
        lost += !has(s, &key, i);
    }
    CHECK_LE(lost, 1);
    check_structure(s);
    fixture_kill(s);
    fixture_end(&f);
}

/* The same when nobody is left, and the next opener recovers. */
TEST(an_opener_mends_what_the_last_process_left)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_to_split(s);
    die_splitting("split.directory");
    fixture_kill(s);
    s = fixture_open(&f);
    check_structure(s);
    fixture_kill(s);
    fixture_end(&f);
}

CHECK_MAIN
