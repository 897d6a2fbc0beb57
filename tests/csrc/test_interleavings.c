/* What several processes do at the same moment, each moment staged: a guard is asked under a page's lock, so
 * a test that stands in one knows what the others see. */
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "evict.h"
#include "read.h"
#include "rebuild.h"
#include "rows.h"
#include "store_fixture.h"
#include "write.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u
#define LATER_MS (700 * 1000)

static struct fixture f;

/* ---- publishing and retiring ---- */

/* The record of block 1, committed and not published. */
static struct fb_space unpublished(fb_store *s, uint64_t length_bytes)
{
    struct fb_key key = key_of_number(1);
    struct fb_space space;
    uint8_t data[1000];
    uint32_t crc, dataset = fb_dataset_slot(s, 0, true);
    CHECK_LE(length_bytes, sizeof data);
    block_bytes(1, 0, data, length_bytes);
    CHECK_EQ(fb_space_reserve(s, dataset, 0, FB_QUEUE_SMALL, &key, length_bytes, false, &space), 0);
    CHECK_EQ(fb_space_write(s, &space, data, &crc), 0);
    CHECK_EQ(fb_space_commit(s, &space, &key, crc, 0, FB_RECORD_COMMITTED), 0);
    return space;
}

struct cleaner {
    fb_store *store;
    uint32_t segment;
    pthread_t thread;
    int result;
};

static void *retire(void *argument)
{
    struct cleaner *c = argument;
    c->result = fb_segment_retire(c->store, c->segment, FB_EVICT_FORCE);
    return NULL;
}

/* Until the cleaner is through, or waits for the lock that we are asked under. */
static bool cleaner_comes(fb_store *s, void *context, uint64_t old_place)
{
    struct cleaner *c = context;
    const struct fb_key key = key_of_number(1);
    uint32_t page = atomic_load(&s->directory[fb_index_entry(s, key.lo)]);
    (void)old_place;
    CHECK_EQ(pthread_create(&c->thread, NULL, retire, c), 0);
    for (;;) {
        uint32_t state = fb_segment_state_of(s, c->segment);
        if (state == FB_HELD || state == FB_FREE)
            return true;
        if (state == FB_RETIRING && (atomic_load(&s->metas[page].lock) & 0x80000000u))
            return true;
        usleep(100);
    }
}

TEST(what_is_published_while_its_segment_is_retired_does_not_outlive_it)
{
    fb_store *writer = fixture_begin_store(&f, QUOTA), *other = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    struct fb_space space = unpublished(writer, 1000);
    struct fb_found found;
    uint64_t old;
    fb_segment_seal(writer, space.segment);

    struct cleaner cleaner = {.store = other, .segment = space.segment};
    CHECK_EQ(fb_index_put(writer, &key, fb_space_place(&space, 0, 1), FB_EXTENT(1000, 0), cleaner_comes,
                          &cleaner, &old),
             0);
    CHECK_EQ(pthread_join(cleaner.thread, NULL), 0);
    fb_space_end(writer, &space);
    CHECK_EQ(cleaner.result, 0);
    CHECK_EQ(fb_index_find(writer, &key, &found), -ENOENT);
    CHECK_EQ(fb_maintain(writer), 0);
    CHECK_EQ(fb_segment_state_of(writer, space.segment), FB_FREE);
    fb_close(other);
    fixture_end_store(&f, writer);
}

TEST(a_retiring_that_is_given_up_leaves_the_record_of_one_who_publishes_later)
{
    fb_store *writer = fixture_begin_store(&f, QUOTA), *other = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    uint32_t page;
    /* The last record's page is stuck, so that the cleaner gives up after it has passed the first. */
    CHECK(block_put(writer, 2, 0, 1000));
    struct fb_space space = unpublished(writer, 1000);
    CHECK(block_put(writer, 3, 0, 1000));
    CHECK_NE(fb_index_entry(writer, key.lo), fb_index_entry(writer, key_of_number(3).lo));
    fb_segment_seal(writer, space.segment);
    CHECK_EQ(fb_index_lock(writer, key_of_number(3).lo, &page), 0);
    CHECK_EQ(fb_segment_retire(other, space.segment, FB_EVICT_FORCE), -ETIMEDOUT);
    fb_index_unlock(writer, page);
    CHECK_EQ(fb_segment_state_of(writer, space.segment), FB_SEALED);

    CHECK_EQ(fb_publish(writer, &key, &space, 0, 0), 0);
    fb_space_end(writer, &space);
    CHECK(block_hit(other, 1, 0, 1000));
    store_is_sound(other);
    CHECK_EQ(fb_segment_retire(other, space.segment, FB_EVICT_FORCE), 0);
    CHECK(!block_hit(other, 1, 0, 1000));
    fb_close(other);
    fixture_end_store(&f, writer);
}

static bool retire_target(fb_store *s, void *context, uint64_t old_place)
{
    const struct fb_space *space = context;
    (void)old_place;
    fb_segment_seal(s, space->segment);
    CHECK(fb_segment_turn(s, space->segment, FB_SEALED, FB_RETIRING));
    return fb_space_is_open(s, space);
}

TEST(nothing_moves_into_a_segment_that_is_being_retired)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_segment(s, 0, LENGTH);
    struct fb_key key = key_of_number(0);
    struct fb_found found = block_found(s, 0);
    struct fb_space space;
    CHECK_EQ(fb_space_reserve(s, fb_dataset_slot(s, 0, true), 0, FB_QUEUE_SMALL, &key, LENGTH, true, &space),
             0);
    CHECK_EQ(
        fb_index_move(s, key.lo, key.check, found.place, fb_space_place(&space, 0, 1), retire_target, &space),
        -ECANCELED);
    CHECK_EQ(FB_PLACE_LOCATION(block_found(s, 0).place), FB_PLACE_LOCATION(found.place));
    CHECK(fb_segment_turn(s, space.segment, FB_RETIRING, FB_SEALED));
    fb_space_abandon(s, &space);
    fb_space_end(s, &space);
    fixture_end_store(&f, s);
}

/* ---- splits ---- */

struct count {
    uint32_t asked;
};

static bool count_asked(fb_store *s, void *context, uint64_t old_place)
{
    struct count *count = context;
    (void)s;
    CHECK_EQ(old_place, 0);
    count->asked++;
    return true;
}

TEST(after_a_split_the_guard_is_asked_again_under_the_lock_of_the_page_that_is_written)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct count count = {0};
    uint32_t page = atomic_load(&s->directory[0]), pages = atomic_load(&s->shared->page_count), puts = 0;
    uint64_t old;
    while (atomic_load(&s->metas[page].used) < FB_PAGE_SPLIT_AT) {
        struct fb_key key = key_at(puts << 8, puts << 20, puts);
        CHECK_EQ(fb_index_put(s, &key, FB_PLACE(FB_SLOT_PRESENT, 0, 1, puts, puts, 1), 1, NULL, NULL, &old),
                 0);
        puts++;
    }
    /* Of the entries that lead to the page this key has the last: it goes to the new one. */
    uint32_t last = atomic_load(&fb_page_at(s, page)->first) + atomic_load(&fb_page_at(s, page)->span) - 1;
    struct fb_key key = key_at(0, 0, 1u << 20);
    while (fb_index_entry(s, key.lo) != last)
        key.lo += (uint64_t)1 << 40;
    CHECK_EQ(fb_index_put(s, &key, FB_PLACE(FB_SLOT_PRESENT, 0, 1, 0, 0, 2), 1, count_asked, &count, &old),
             0);
    CHECK_EQ(atomic_load(&s->shared->page_count), pages + 1);
    CHECK_EQ(count.asked, 2);
    fixture_kill(s);
    fixture_end(&f);
}

/* A child that stops where the directory leads to the new page and the old one still has what moved. */
static void insert_until_stopped(void)
{
    setenv("FOREBAY_FAILPOINT", "split.directory=stop@1", 1);
    fb_store *s = fixture_open(&f);
    uint64_t old;
    for (uint64_t i = 0; i < 100000; i++) {
        struct fb_key key = key_of_number(i);
        fb_index_put(s, &key, FB_PLACE(FB_SLOT_PRESENT, 0, 1, i, i, 1), 1, NULL, NULL, &old);
    }
    _exit(1);
}

TEST(a_page_that_is_split_is_odd_while_the_directory_already_leads_past_it)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    int status;
    pid_t child = fork();
    CHECK_GE(child, 0);
    if (child == 0)
        insert_until_stopped();
    CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
    CHECK(WIFSTOPPED(status));
    uint32_t splitting = 0;
    for (uint32_t page = 0; page < atomic_load(&s->shared->page_count); page++) {
        uint32_t fresh = atomic_load(&s->metas[page].split_to);
        if (fresh == 0)
            continue;
        splitting++;
        CHECK_EQ(atomic_load(&s->directory[atomic_load(&fb_page_at(s, fresh - 1)->first)]), fresh - 1);
        CHECK_EQ(atomic_load(&s->metas[page].sequence) & 1u, 1);
    }
    CHECK_EQ(splitting, 1);
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, &status, 0), child);
    for (uint64_t i = 0; i < 20000; i++) {
        struct fb_key key = key_of_number(i);
        struct fb_found unlocked, locked;
        CHECK_EQ(fb_index_find_locked(s, &key, &locked), fb_index_find(s, &key, &unlocked));
    }
    CHECK_GT(store_counter(s, FB_C_PAGE_REPAIRS), 0);
    fixture_kill(s);
    fixture_end(&f);
}

/* ---- room in a segment ---- */

static uint32_t open_segment_of(fb_store *s, uint32_t dataset_id)
{
    return atomic_load(&s->datasets[fb_dataset_slot(s, dataset_id, false)].open[0][FB_QUEUE_SMALL]) - 1;
}

static void set_word(fb_store *s, uint32_t segment, uint32_t records, uint32_t end)
{
    uint64_t word = atomic_load(&s->segments[segment].word);
    atomic_store(&s->segments[segment].word, FB_WORD(FB_OPEN, FB_WORD_GENERATION(word), records, end));
}

TEST(a_record_whose_place_does_not_fit_its_field_goes_to_the_next_segment)
{
    fixture_begin(&f, 130ull << 30); /* segments of 256 MiB and a little more */
    fb_store *s = fixture_open(&f);
    CHECK(block_put(s, 0, 0, 100));
    uint32_t first = open_segment_of(s, 0);
    CHECK_GT(fb_geometry_of(s, first).file_bytes >> FB_UNIT_SHIFT, FB_PLACE_UNIT_MAX);
    set_word(s, first, 1, FB_PLACE_UNIT_MAX);
    CHECK(block_put(s, 1, 0, 100));
    CHECK_EQ(block_segment(s, 1), first);
    CHECK(block_put(s, 2, 0, 100));
    CHECK_NE(block_segment(s, 2), first);
    set_word(s, open_segment_of(s, 0), FB_WORD_RECORDS_MAX, 1000);
    CHECK(block_put(s, 3, 0, 100));
    CHECK_NE(block_segment(s, 3), block_segment(s, 2));
    blocks_hit(s, 0, 4, 100);
    fixture_kill(s);
    fixture_end(&f);
}

TEST(a_segment_that_is_anothers_by_now_is_not_written_into)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint8_t data[100];
    struct fb_key mine = key_of_number(1), others = key_of_number(2);
    block_bytes(1, 0, data, sizeof data);
    CHECK_EQ(fb_put(s, &others, TERMS(7, -1), data, sizeof data), 0);
    uint32_t dataset = fb_dataset_slot(s, 9, true);
    /* As a process sees it that was stopped since its dataset's segment was sealed, freed and taken. */
    atomic_store(&s->datasets[dataset].open[0][FB_QUEUE_SMALL], open_segment_of(s, 7) + 1);
    CHECK_EQ(fb_put(s, &mine, TERMS(9, -1), data, sizeof data), 0);
    CHECK_NE(block_segment(s, 1), block_segment(s, 2));
    CHECK_EQ(fb_segment_state_of(s, block_segment(s, 2)), FB_OPEN);
    fixture_end_store(&f, s);
}

/* ---- processes that are stopped ---- */

TEST(one_who_is_stopped_before_it_takes_a_segment_keeps_nobody_from_the_others)
{
    fb_store *s = fixture_begin_store(&f, QUOTA), *stopped = fixture_open(&f);
    CHECK(fb_segment_own(stopped, 0));
    CHECK(block_put(s, 1, 0, LENGTH));
    fb_segment_disown(stopped, 0);
    fb_close(stopped);
    fixture_end_store(&f, s);
}

TEST(a_stopped_writer_in_the_oldest_segment_does_not_end_eviction)
{
    fb_store *s = fixture_begin_store(&f, QUOTA), *stopped = fixture_open(&f);
    CHECK_EQ(fb_set_retention(s, 0, FB_LRU), 0);
    struct fb_fill fill = block_reserve(stopped, 1u << 30, LENGTH);
    uint32_t refused = 0;
    for (uint64_t i = 0; i < 2000; i++) {
        refused = block_put(s, i, 0, LENGTH) ? 0 : refused + 1;
        CHECK_LT(refused, 8);
        if (refused != 0)
            CHECK_EQ(fb_maintain(s), 0);
    }
    CHECK_GT(store_counter(s, FB_C_EVICTED), 1000);
    fb_fill_abandon(stopped, &fill);
    fb_close(stopped);
    fixture_end_store(&f, s);
}

/* ---- room for others ---- */

static int put_in(fb_store *s, uint64_t number, uint32_t dataset, uint64_t length_bytes)
{
    struct fb_key key = key_of_number(number);
    uint8_t *data = malloc(length_bytes);
    CHECK(data != NULL);
    block_bytes(number, 0, data, length_bytes);
    int r = fb_put(s, &key, TERMS(dataset, -1), data, length_bytes);
    free(data);
    return r;
}

TEST(datasets_that_are_idle_give_up_segments_that_are_not_full_too)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint32_t dataset = 0;
    while (put_in(s, dataset, dataset, 100) == 0)
        dataset++;
    CHECK_GT(dataset, 5);
    CHECK_EQ(fb_maintain(s), 0);
    CHECK_EQ(put_in(s, dataset, dataset, 100), -ENOSPC); /* nobody has been idle for long */
    fb_clock_advance(s, LATER_MS);
    CHECK_EQ(put_in(s, dataset, dataset, 100), -ENOSPC);
    CHECK_EQ(fb_maintain(s), 0);
    CHECK_EQ(put_in(s, dataset, dataset, 100), 0);
    fixture_end_store(&f, s);
}

TEST(pins_of_an_idle_dataset_are_not_moved_about_for_nothing)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint64_t count = 0;
    while (put_in(s, count, 1, LENGTH) == 0)
        count++;
    for (uint64_t i = 0; i < count; i++) {
        struct fb_key key = key_of_number(i);
        int r = fb_pin(s, &key, NULL);
        CHECK(r == 0 || r == -EDQUOT);
    }
    fb_clock_advance(s, LATER_MS);
    for (int round = 0; round < 60; round++) {
        put_in(s, count + (uint64_t)round, 2, LENGTH);
        CHECK_EQ(fb_maintain(s), 0);
    }
    CHECK_LT(store_counter(s, FB_C_MOVED), count / 2);
    fixture_end_store(&f, s);
}

/* ---- rebuilding ---- */

static void lose_index(fb_store *s)
{
    char path[FB_PATH_MAX];
    fixture_kill(s);
    fixture_path(&f, "index", path);
    CHECK_EQ(unlink(path), 0);
}

TEST(a_rebuild_without_descriptors_gives_nothing_up)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint64_t count = fill_segment(s, 0, LENGTH);
    lose_index(s);
    s = fixture_open(&f);
    struct rlimit limit, none;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 3;
    /* Its lock first, as of one who is in the middle of a round. */
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    for (int i = 0; i < 5; i++)
        fb_rebuild_some(s);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_EQ(atomic_load(&s->shared->rebuilding), 1);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(fb_maintain(s), 0);
    CHECK_EQ(atomic_load(&s->shared->rebuilding), 0);
    blocks_hit(s, 0, count, LENGTH);
    fixture_end_store(&f, s);
}

TEST(a_reservation_from_before_a_rebuild_is_nobodys)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 0, 0, LENGTH));
    struct fb_fill fill = block_reserve(s, 1u << 30, LENGTH);
    fb_pool_give(s, fill.owned);
    uint32_t segment = block_segment(s, 0), me = s->me;
    lose_index(s);
    s = fixture_open(&f);
    CHECK_EQ(s->me, me);
    for (int i = 0; i < 3; i++)
        CHECK_EQ(fb_maintain(s), 0);
    CHECK(block_hit(s, 0, 0, LENGTH));
    CHECK_EQ(fb_segment_retire(s, segment, FB_EVICT_ALL), 0);
    fixture_end_store(&f, s);
}

/* ---- files that go and come again under one number ---- */

TEST(a_descriptor_of_the_file_before_is_not_used_for_the_next)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 0, 0, LENGTH));
    uint32_t segment = block_segment(s, 0);
    int before = fb_descriptor_get(s, segment);
    atomic_fetch_add(&s->segments[segment].file_epoch, 1);
    int next = fb_descriptor_get(s, segment);
    CHECK_GE(before, 0);
    CHECK_GE(next, 0);
    CHECK_NE(before, next);
    fb_descriptor_put(s, segment, next);
    fb_descriptor_put(s, segment, before);
    CHECK_EQ(fb_descriptor_get(s, segment) >= 0, true);
    CHECK_EQ(s->maps[segment].descriptor_users, 1);
    CHECK_EQ(s->maps[segment].descriptor_epoch, atomic_load(&s->segments[segment].file_epoch));
    fb_descriptor_put(s, segment, s->maps[segment].descriptor);
    fixture_end_store(&f, s);
}

TEST(a_block_of_a_whole_file_has_one_key)
{
    fb_store *s = fixture_begin_store(&f, 256 * MIB);
    struct fb_key file = key_of_number(1), one = key_of_number(2), another = key_of_number(3);
    struct fb_whole whole;
    uint8_t *data = calloc(1, 4 * MIB);
    CHECK(data != NULL);
    CHECK_EQ(fb_whole_begin(s, &file, TERMS(0, -1), 12 * MIB, 4 * MIB, &whole), 0);
    CHECK_EQ(fb_whole_write(s, &whole, 1, &one, data, 4 * MIB), 0);
    CHECK_EQ(fb_whole_write(s, &whole, 1, &another, data, 4 * MIB), -EINVAL);
    CHECK_EQ(fb_whole_write(s, &whole, 1, &one, data, 4 * MIB), 0);
    fb_whole_abandon(s, &whole);
    CHECK(!fb_contains(s, &one));
    free(data);
    fixture_end_store(&f, s);
}

CHECK_MAIN
