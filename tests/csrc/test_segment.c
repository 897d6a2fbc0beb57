/* Segments: room taken by compare-and-swap, table entries and whose they are, sealing, the account. */
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "platform.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)

static struct fixture f;

static int reserve(fb_store *s, uint64_t number, uint64_t length_bytes, struct fb_space *out)
{
    struct fb_key key = key_of_number(number);
    uint32_t dataset = fb_dataset_slot(s, 0, true);
    return fb_space_reserve(s, dataset, 0, FB_QUEUE_SMALL, &key, length_bytes, false, out);
}

/* Reserve and give up: what is left is an entry of a dead record. */
static struct fb_space take(fb_store *s, uint64_t number, uint64_t length_bytes)
{
    struct fb_space space;
    CHECK_EQ(reserve(s, number, length_bytes, &space), 0);
    fb_space_abandon(s, &space);
    fb_space_end(s, &space);
    return space;
}

/* ---- room ---- */

TEST(records_follow_each_other_until_the_segment_is_full)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_space first = take(s, 0, 1000), space = first;
    uint64_t end = first.offset;
    uint32_t number = 0;

    CHECK_EQ(first.offset, FB_SEGMENT_SUPER_BYTES);
    while (space.segment == first.segment) {
        CHECK_EQ(space.record, number);
        CHECK_EQ(space.generation, first.generation);
        CHECK_EQ(space.offset, (uint64_t)space.unit << FB_UNIT_SHIFT);
        CHECK_GE(space.offset, end);
        CHECK_EQ(space.offset % (space.length_bytes >= FB_CHUNK_BYTES ? 4096 : 64), 0);
        end = space.offset + fb_record_extent(space.length_bytes);
        number++;
        space = take(s, number, number % 5 == 0 ? 70000 : number * 37 % 9000);
    }
    uint64_t word = atomic_load(&s->segments[first.segment].word);
    CHECK_EQ(FB_WORD_STATE(word), FB_SEALED);
    CHECK_EQ(FB_WORD_RECORDS(word), number);
    CHECK_EQ((uint64_t)FB_WORD_END(word) * 64, end);
    CHECK_LE(end + number * FB_RECORD_BYTES, fb_geometry_of(s, first.segment).file_bytes);
    CHECK_EQ(FB_WORD_STATE(atomic_load(&s->segments[space.segment].word)), FB_OPEN);
    CHECK_EQ(space.record, 0);
    fixture_end_store(&f, s);
}

TEST(a_record_as_long_as_a_segment_takes_fits_and_no_longer)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_space space;
    uint64_t file_bytes = s->super->tiers[0].segment_bytes;
    uint64_t longest = file_bytes - FB_SEGMENT_SUPER_BYTES - 4096 - FB_RECORD_BYTES;
    while (fb_record_extent(longest) + FB_SEGMENT_SUPER_BYTES + 4096 + FB_RECORD_BYTES > file_bytes)
        longest--;
    CHECK_GE(longest, MIB);
    CHECK_EQ(reserve(s, 1, longest + 64, &space), -ENOSPC);
    CHECK_EQ(atomic_load(&s->shared->age), 0); /* no segment was opened and sealed in vain */
    CHECK(block_put(s, 1, 0, longest));
    CHECK(block_hit(s, 1, 0, longest));
    store_is_sound(s);
    fixture_end_store(&f, s);
}

TEST(a_reservation_leases_its_segment_until_it_ends)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_space space;
    CHECK_EQ(reserve(s, 1, 100, &space), 0);
    CHECK(fb_segment_is_leased(s, space.segment));
    fb_space_abandon(s, &space);
    CHECK(fb_segment_is_leased(s, space.segment));
    fb_space_end(s, &space);
    CHECK(!fb_segment_is_leased(s, space.segment));
    fixture_end_store(&f, s);
}

TEST(datasets_and_queues_fill_segments_of_their_own)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(1);
    struct fb_space a, b, c;
    uint32_t one = fb_dataset_slot(s, 1, true), two = fb_dataset_slot(s, 2, true);
    CHECK_EQ(fb_space_reserve(s, one, 0, FB_QUEUE_SMALL, &key, 100, false, &a), 0);
    CHECK_EQ(fb_space_reserve(s, two, 0, FB_QUEUE_SMALL, &key, 100, false, &b), 0);
    CHECK_EQ(fb_space_reserve(s, one, 0, FB_QUEUE_MAIN, &key, 100, true, &c), 0);
    CHECK(a.segment != b.segment && b.segment != c.segment && a.segment != c.segment);
    CHECK_EQ(atomic_load(&s->segments[a.segment].dataset), one);
    CHECK_EQ(atomic_load(&s->segments[b.segment].dataset), two);
    CHECK(!(atomic_load(&s->segments[a.segment].flags) & FB_SEG_MAIN_QUEUE));
    CHECK(atomic_load(&s->segments[c.segment].flags) & FB_SEG_MAIN_QUEUE);
    fb_space_end(s, &a);
    fb_space_end(s, &b);
    fb_space_end(s, &c);
    fixture_kill(s);
    fixture_end(&f);
}

struct taker {
    fb_store *store;
    uint32_t seed, count;
    struct fb_space spaces[4000];
};

static void *take_many(void *argument)
{
    struct taker *t = argument;
    for (; t->count < 4000; t->count++) {
        struct fb_key key = key_of_number(t->count);
        uint64_t length = (t->count * 2654435761u + t->seed) >> 19;
        struct fb_space *space = &t->spaces[t->count];
        if (fb_space_reserve(t->store, 0, 0, FB_QUEUE_SMALL, &key, length, false, space) != 0)
            break;
        fb_space_end(t->store, space);
    }
    return NULL;
}

static int by_place(const void *a, const void *b)
{
    const struct fb_space *x = a, *y = b;
    if (x->segment != y->segment)
        return x->segment < y->segment ? -1 : 1;
    return x->record < y->record ? -1 : x->record > y->record;
}

TEST(writers_of_two_processes_never_get_the_same_room)
{
    enum { THREADS = 4 };
    fixture_begin(&f, QUOTA);
    fb_store *stores[2] = {fixture_open(&f), fixture_open(&f)};
    struct taker *takers = calloc(THREADS, sizeof *takers);
    struct fb_space *all = calloc(THREADS * 4000, sizeof *all);
    pthread_t threads[THREADS];
    uint32_t count = 0;
    CHECK(takers != NULL && all != NULL);
    CHECK_EQ(fb_dataset_slot(stores[0], 0, true), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        takers[i] = (struct taker){.store = stores[i % 2], .seed = i << 20};
        CHECK_EQ(pthread_create(&threads[i], NULL, take_many, &takers[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
        memcpy(all + count, takers[i].spaces, takers[i].count * sizeof *all);
        count += takers[i].count;
    }
    CHECK_GT(count, 2000);
    qsort(all, count, sizeof *all, by_place);
    for (uint32_t i = 1; i < count; i++) {
        const struct fb_space *a = &all[i - 1], *b = &all[i];
        CHECK(a->segment != b->segment || b->record == a->record + 1);
        CHECK(a->segment != b->segment || b->offset >= a->offset + fb_record_extent(a->length_bytes));
    }
    /* Sealed once each, in whatever order: all ages differ. */
    for (uint32_t i = 0; i < stores[0]->super->tiers[0].segment_count; i++)
        for (uint32_t j = 0; j < i; j++)
            CHECK(fb_segment_state_of(stores[0], i) != FB_SEALED ||
                  fb_segment_state_of(stores[0], j) != FB_SEALED ||
                  atomic_load(&stores[0]->segments[i].age) != atomic_load(&stores[0]->segments[j].age));
    free(all);
    free(takers);
    fixture_kill(stores[0]);
    fixture_kill(stores[1]);
    fixture_end(&f);
}

/* A writer that comes late to a segment that somebody else has sealed, evicted and taken anew. */
TEST(sealing_touches_only_what_is_open)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_segment(s, 0, 60000);
    uint32_t segment = block_segment(s, 0);
    uint64_t age = atomic_load(&s->segments[segment].age), clock = atomic_load(&s->shared->age);
    fb_segment_seal(s, segment);
    CHECK_EQ(atomic_load(&s->segments[segment].age), age);
    CHECK_EQ(atomic_load(&s->shared->age), clock);
    CHECK_EQ(fb_segment_state_of(s, segment), FB_SEALED);
    fixture_end_store(&f, s);
}

/* ---- table entries ---- */

TEST(the_table_grows_down_from_the_end)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    char path[FB_PATH_MAX];
    for (uint64_t i = 0; i < 10; i++)
        CHECK(block_put(s, i, 0, 100 + i));
    uint32_t segment = block_segment(s, 0);
    fixture_segment_path(&f, s, segment, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK_GE(fd, 0);
    for (uint64_t i = 0; i < 10; i++) {
        struct fb_record record;
        struct fb_key key = key_of_number(i);
        uint64_t file_bytes = fb_geometry_of(s, segment).file_bytes;
        CHECK_EQ(fb_pread_all(fd, &record, sizeof record, file_bytes - (i + 1) * sizeof record), 0);
        CHECK_EQ(record.lo, key.lo);
        CHECK_EQ(record.hi, key.hi);
        CHECK_EQ(record.check, key.check);
        CHECK_EQ(record.length, 100 + i);
        CHECK_EQ(record.state, FB_RECORD_COMMITTED);
        CHECK_EQ(record.owner, s->me);
    }
    close(fd);
    fixture_end_store(&f, s);
}

TEST(an_entry_of_an_older_use_is_no_entry)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_record record;
    struct fb_space space = take(s, 1, 100);
    CHECK_EQ(fb_record_read(s, space.segment, space.record, &record), 0);
    CHECK_EQ(record.state, FB_RECORD_DEAD);
    uint64_t word = atomic_load(&s->segments[space.segment].word);
    fb_segment_renew(s, space.segment, FB_OPEN);
    CHECK_EQ(FB_WORD_GENERATION(atomic_load(&s->segments[space.segment].word)), FB_WORD_GENERATION(word) + 1);
    CHECK_EQ(fb_record_read(s, space.segment, space.record, &record), -EBADMSG);
    fixture_kill(s);
    fixture_end(&f);
}

static bool valid_with(fb_store *s, uint32_t segment, struct fb_record record)
{
    record.self_crc = fb_crc32c(0, &record, offsetof(struct fb_record, self_crc));
    return fb_record_valid(s, segment, &record);
}

TEST(entries_that_lead_out_of_the_data_are_no_entries)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_record good, bad;
    CHECK(block_put(s, 1, 0, 1000));
    uint32_t segment = block_segment(s, 1);
    CHECK_EQ(fb_record_read(s, segment, 0, &good), 0);
    CHECK(valid_with(s, segment, good));

    bad = good;
    bad.self_crc ^= 1;
    CHECK(!fb_record_valid(s, segment, &bad));
    bad = good;
    bad.unit = 0; /* the superblock */
    CHECK(!valid_with(s, segment, bad));
    bad = good;
    bad.unit = UINT32_MAX;
    CHECK(!valid_with(s, segment, bad));
    bad = good;
    bad.length = UINT32_MAX;
    CHECK(!valid_with(s, segment, bad));
    bad = good;
    bad.length = (uint32_t)s->super->tiers[0].segment_bytes;
    CHECK(!valid_with(s, segment, bad));
    bad = good;
    bad.generation++;
    CHECK(!valid_with(s, segment, bad));
    CHECK_NE(fb_record_read(s, segment, (1u << 21) - 1, &bad), 0); /* before the file's first byte */
    fixture_end_store(&f, s);
}

/* A slot keeps 14 bits of the record's number: above 16,384 records several fit it. */
TEST(records_beyond_fourteen_bits_are_told_apart)
{
    fixture_begin(&f, QUOTA);
    f.config.checksum = FB_CHECKSUM_READ;
    fb_store *s = fixture_open(&f);
    const uint64_t count = (1u << 14) + 100;
    for (uint64_t i = 0; i < count; i++)
        CHECK(block_put(s, i, 0, 0));
    CHECK_EQ(block_segment(s, 0), block_segment(s, count - 1));
    for (uint64_t i = 0; i < count; i += i < 200 || i + 200 > count ? 1 : 1000) {
        struct fb_record record;
        struct fb_key key = key_of_number(i);
        struct fb_found found = block_found(s, i);
        CHECK_EQ(fb_record_of_place(s, found.place, key.lo, key.check, &record), i);
        CHECK(block_hit(s, i, 0, 0));
    }
    fixture_end_store(&f, s);
}

/* ---- datasets and the account ---- */

TEST(the_dataset_table_is_bounded)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    struct fb_key key = key_of_number(1);
    CHECK_EQ(fb_dataset_slot(a, 77, false), FB_DATASETS_MAX);
    uint32_t slot = fb_dataset_slot(a, 77, true);
    CHECK_EQ(fb_dataset_slot(b, 77, true), slot);
    CHECK_EQ(fb_dataset_slot(b, 77, false), slot);
    for (uint32_t id = 1000; id < 1000 + FB_DATASETS_MAX - 1; id++)
        CHECK_LT(fb_dataset_slot(a, id, true), FB_DATASETS_MAX);
    CHECK_EQ(fb_dataset_slot(a, UINT32_MAX, true), FB_DATASETS_MAX);
    CHECK_EQ(fb_put(a, &key, TERMS(UINT32_MAX, -1), "x", 1), -ENOSPC);
    CHECK_EQ(fb_put(a, &key, TERMS(77, -1), "x", 1), 0);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(the_account_follows_the_states)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_usage u;
    uint64_t each = s->super->tiers[0].segment_bytes;
    fb_tier_usage(s, 0, &u);
    CHECK_EQ(u.used_bytes, 0);
    CHECK_EQ(u.file_bytes, 0);
    CHECK_EQ(u.absent_first, 0);
    fill_segment(s, 0, 60000);
    fb_tier_usage(s, 0, &u);
    CHECK_EQ(u.used_bytes, 2 * each);
    CHECK_EQ(u.file_bytes, 2 * each);
    CHECK_EQ(u.absent_first, 2);
    CHECK(fb_segment_turn(s, 0, FB_SEALED, FB_FREE));
    CHECK(!fb_segment_turn(s, 0, FB_SEALED, FB_FREE));
    fb_tier_usage(s, 0, &u);
    CHECK_EQ(u.used_bytes, each);
    CHECK_EQ(u.file_bytes, 2 * each);
    CHECK_EQ(u.free_count, 1);
    CHECK_EQ(u.free_first, 0);
    CHECK(fb_segment_turn(s, 0, FB_FREE, FB_BAD));
    fb_tier_usage(s, 0, &u);
    CHECK_EQ(u.file_bytes, each);
    fixture_kill(s);
    fixture_end(&f);
}

CHECK_MAIN
