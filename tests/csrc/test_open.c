/* Opening: what is trusted, what is recovered, what is refused, and the clock over a restart. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "geometry.h"
#include "rebuild.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u
#define BLOCKS 60u

static struct fixture f;

static fb_store *filled(void)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    for (uint64_t i = 0; i < BLOCKS; i++)
        CHECK(block_put(s, i, 0, LENGTH));
    return s;
}

static void expect_all(fb_store *s)
{
    while (atomic_load(&s->shared->rebuilding))
        fb_rebuild_some(s);
    for (uint64_t i = 0; i < BLOCKS; i++)
        CHECK(block_hit(s, i, 0, LENGTH));
    store_is_sound(s);
}

static void end(fb_store *s)
{
    fixture_end_store(&f, s);
}

/* Change the superblock at rest; with its checksums made right again, as a hostile writer would. */
static void change_super(void (*change)(struct fb_index_super *super))
{
    static struct fb_index_super super;
    char path[FB_PATH_MAX];
    fixture_path(&f, "index", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_GE(fd, 0);
    CHECK_EQ(fb_pread_all(fd, &super, sizeof super, 0), 0);
    change(&super);
    super.static_crc = fb_super_static_crc(&super);
    super.dynamic_crc = fb_super_dynamic_crc(&super);
    CHECK_EQ(fb_pwrite_all(fd, &super, sizeof super, 0), 0);
    close(fd);
}

/* ---- trust ---- */

TEST(a_clean_close_is_trusted)
{
    fb_store *s = filled();
    CHECK(block_hit(s, 0, 0, LENGTH));
    fb_close(s);
    s = fixture_open(&f);
    CHECK(!atomic_load(&s->shared->rebuilding));
    CHECK_EQ(store_blocks(s), BLOCKS);
    CHECK_EQ(store_counter(s, FB_C_PUT), BLOCKS);
    CHECK_EQ(store_counter(s, FB_C_HIT_MEM), 1);
    expect_all(s);
    CHECK(block_put(s, 1000, 0, LENGTH));
    end(s);
}

TEST(every_dataset_id_survives_a_clean_close)
{
    static const uint32_t ids[] = {0, 1, 0x7fffffffu, UINT32_MAX - 1, UINT32_MAX};
    const uint32_t count = sizeof ids / sizeof ids[0];
    fb_store *s = fixture_begin_store(&f, QUOTA);
    for (uint32_t i = 0; i < count; i++) {
        struct fb_key key = key_of_number(i);
        CHECK_EQ(fb_put(s, &key, TERMS(ids[i], -1), "bytes", 5), 0);
    }
    fb_close(s);
    s = fixture_open(&f);
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(store_blocks(s), count - i);
        CHECK_EQ(fb_free_dataset(s, ids[i]), 0);
        struct fb_key key = key_of_number(i);
        CHECK(!fb_contains(s, &key));
    }
    CHECK_EQ(store_blocks(s), 0);
    end(s);
}

TEST(what_processes_that_died_left_is_mended_in_place)
{
    fb_store *s = filled(), *other = fixture_open(&f);
    struct fb_hit hit = block_hold(other, 3);
    uint32_t row = other->row;
    atomic_store(&s->shared->grow_lock, other->me);
    atomic_store(&s->datasets[5].lock, other->me);
    fixture_kill(other);
    fixture_kill(s);
    s = fixture_open(&f);
    CHECK(!atomic_load(&s->shared->rebuilding));
    CHECK_EQ(atomic_load(&s->leases[row * s->segment_count + hit.segment]), 0);
    CHECK_EQ(atomic_load(&s->shared->grow_lock), 0);
    CHECK_EQ(atomic_load(&s->datasets[5].lock), 0);
    CHECK_EQ(store_counter(s, FB_C_PUT), BLOCKS);
    expect_all(s);
    end(s);
}

static void expect_a_rebuild(void)
{
    fb_store *s = fixture_open(&f);
    CHECK(atomic_load(&s->shared->rebuilding));
    expect_all(s);
    end(s);
}

static void of_another_boot(struct fb_index_super *super)
{
    super->boot_id[0] ^= 1;
}

TEST(after_another_boot_without_a_clean_close_the_index_is_rebuilt)
{
    fixture_kill(filled());
    change_super(of_another_boot);
    expect_a_rebuild();
}

TEST(a_clean_close_is_trusted_after_another_boot)
{
    fb_close(filled());
    change_super(of_another_boot);
    fb_store *s = fixture_open(&f);
    CHECK(!atomic_load(&s->shared->rebuilding));
    expect_all(s);
    end(s);
}

TEST(an_index_that_is_garbage_is_rebuilt)
{
    static const off_t lengths[] = {0, 100, FB_INDEX_SUPER_BYTES, FB_INDEX_SUPER_BYTES + 4096, 300000};
    char path[FB_PATH_MAX];
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        fb_close(filled());
        fixture_path(&f, "index", path);
        CHECK_EQ(truncate(path, lengths[i]), 0);
        expect_a_rebuild();
    }
}

/* One bit, anywhere in the superblock, the saved segment table or a page's header: found, or harmless. */
static void flip_bit(uint64_t offset, unsigned bit)
{
    char path[FB_PATH_MAX];
    uint8_t byte;
    fixture_path(&f, "index", path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_GE(fd, 0);
    CHECK_EQ(fb_pread_all(fd, &byte, 1, offset), 0);
    byte ^= (uint8_t)(1u << bit);
    CHECK_EQ(fb_pwrite_all(fd, &byte, 1, offset), 0);
    close(fd);
}

TEST(a_flipped_bit_of_the_superblock_is_found)
{
    static const size_t offsets[] = {offsetof(struct fb_index_super, magic),
                                     offsetof(struct fb_index_super, store_id),
                                     offsetof(struct fb_index_super, segment_count),
                                     offsetof(struct fb_index_super, tiers[0].segment_bytes),
                                     offsetof(struct fb_index_super, page_count),
                                     offsetof(struct fb_index_super, verify_generation),
                                     offsetof(struct fb_index_super, clean),
                                     offsetof(struct fb_index_super, dynamic_crc)};
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        fb_close(filled());
        flip_bit(offsets[i], 1);
        expect_a_rebuild();
    }
}

TEST(a_flipped_bit_of_the_saved_segment_table_is_found)
{
    static const size_t offsets[] = {
        offsetof(struct fb_segment, word) + 1, /* end */
        offsetof(struct fb_segment, word) + 4, /* records */
        offsetof(struct fb_segment, generation), offsetof(struct fb_segment, owner),
        offsetof(struct fb_segment, dataset),    offsetof(struct fb_segment, whole_bytes),
        offsetof(struct fb_segment, file_epoch),
    };
    for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++) {
        fb_close(filled());
        flip_bit(FB_INDEX_SUPER_BYTES + offsets[i], 2);
        expect_a_rebuild();
    }
}

/* A segment that the table calls absent, or held by nobody, would be written anew under its slots. */
TEST(a_flipped_state_of_a_segment_serves_no_wrong_bytes)
{
    for (unsigned bit = 4; bit < 8; bit++) {
        fb_close(filled());
        flip_bit(FB_INDEX_SUPER_BYTES + offsetof(struct fb_segment, word) + 7, bit);
        fb_store *s = fixture_open(&f);
        CHECK(atomic_load(&s->shared->rebuilding));
        expect_all(s);
        CHECK_EQ(fb_maintain(s), 0);
        uint64_t next = BLOCKS;
        while (block_put(s, next, 0, LENGTH))
            next++;
        for (uint64_t i = 0; i < next; i++)
            CHECK(block_hit(s, i, 0, LENGTH));
        end(s);
    }
}

static void of_too_many_pages(struct fb_index_super *super)
{
    super->page_count = UINT32_MAX;
}

TEST(a_page_count_beyond_the_index_is_not_followed)
{
    fb_close(filled());
    change_super(of_too_many_pages);
    expect_a_rebuild();
}

TEST(slots_of_files_that_are_gone_go_at_the_next_opening)
{
    fb_store *s = filled();
    char path[FB_PATH_MAX];
    uint64_t gone = 0;
    for (uint64_t i = 0; i < BLOCKS; i++)
        gone += block_segment(s, i) == 1;
    fb_close(s);
    fixture_tier_path(&f, 0, "seg-000001", path);
    CHECK_EQ(unlink(path), 0);
    s = fixture_open(&f);
    CHECK_EQ(store_blocks(s), BLOCKS - gone);
    CHECK_EQ(fb_segment_state_of(s, 1), FB_ABSENT);
    store_is_sound(s);
    end(s);
}

TEST(marks_of_verification_do_not_survive_their_generation_coming_round)
{
    fb_store *s = filled();
    CHECK_EQ(FB_PLACE_VERIFIED(block_found(s, 0).place), 1);
    atomic_store(&s->shared->verify_generation, 255);
    block_damage(&f, s, 0, 100);
    fb_close(s);
    s = fixture_open(&f);
    CHECK_EQ(atomic_load(&s->shared->verify_generation), 1);
    CHECK(!block_hit(s, 0, 0, LENGTH));
    CHECK(block_hit(s, 1, 0, LENGTH));
    end(s);
}

/* ---- refusals ---- */

static void expect_refused(int code, const char *words)
{
    struct fb_error error;
    CHECK_EQ(fixture_refused(&f, &error), code);
    if (strstr(error.message, words) == NULL)
        fprintf(stderr, "%s\n", error.message);
    CHECK(strstr(error.message, words) != NULL);
}

TEST(configurations_that_cannot_be_are_refused_with_the_reason)
{
    fixture_begin(&f, 4 * MIB - 1);
    expect_refused(-EINVAL, "4 MiB");
    f.config.tiers[0].quota_bytes = QUOTA;
    f.config.tiers[0].high_permille = 1001;
    expect_refused(-EINVAL, "watermarks");
    f.config.tiers[0].high_permille = 800;
    expect_refused(-EINVAL, "watermarks");
    f.config.tiers[0].high_permille = 950;
    f.config.row_count = 1;
    expect_refused(-EINVAL, "rows");
    f.config.row_count = 8;
    f.config.tier_count = 0;
    expect_refused(-EINVAL, "none remembered");
    f.config.tier_count = FB_TIERS_MAX + 1;
    expect_refused(-EINVAL, "tiers");
    f.config.tier_count = 1;
    f.config.tiers[0].quota_bytes = UINT64_MAX;
    expect_refused(-EINVAL, "segments");
    fixture_end(&f);
}

TEST(remembered_tiers_are_used_and_others_refused)
{
    fb_close(filled());
    f.config.tiers[0].quota_bytes *= 2;
    expect_refused(-EINVAL, "was made as");
    f.config.tier_count = 0;
    fb_store *s = fixture_open(&f);
    struct fb_config config;
    fb_config_read(s, &config);
    CHECK_EQ(config.tier_count, 1);
    CHECK_EQ(config.tiers[0].quota_bytes, QUOTA);
    expect_all(s);
    f.config.tier_count = 1;
    f.config.reshape = true;
    expect_refused(-EBUSY, "others have");
    fb_close(s);
    s = fixture_open(&f);
    CHECK_EQ(s->super->tiers[0].quota_bytes, 2 * QUOTA);
    f.config.reshape = false;
    end(s);
}

TEST(a_tier_directory_belongs_to_one_cache)
{
    fb_store *s = filled();
    struct fixture thief = f;
    strcat(thief.config.path, "-other");
    struct fixture owner = f;
    f = thief;
    expect_refused(-EINVAL, "belongs to the cache at");
    f = owner;
    expect_all(s);
    end(s);
}

TEST(without_its_shared_file_a_cache_is_not_joined)
{
    fb_store *s = filled();
    char hidden[FB_PATH_MAX + 80];
    snprintf(hidden, sizeof hidden, "%s.hidden", s->super->live_path);
    CHECK_EQ(rename(s->super->live_path, hidden), 0);
    expect_refused(-ENOENT, "share that mount");
    CHECK_EQ(rename(hidden, s->super->live_path), 0);
    fb_close(fixture_open(&f));
    end(s);
}

/* What is left of a cache in /dev/shm is removed by the next who opens one; but of another container's nobody
 * here can say that it is gone. */
static void expect_swept(bool ours)
{
    static struct fixture other;
    char away[80];
    fixture_begin(&f, QUOTA);
    f.config.tiers[0].medium = FB_SSD;
    fb_store *s = fixture_open(&f);
    CHECK(block_put(s, 1, 0, LENGTH));
    CHECK_NE(s->shared->mount_namespace, 0);
    s->shared->mount_namespace += !ours;
    char *live_path = strdup(s->super->live_path);
    CHECK(strncmp(live_path, "/dev/shm/live-", 14) == 0);
    snprintf(away, sizeof away, "%s-away", f.root);
    fixture_kill(s);
    CHECK_EQ(rename(f.root, away), 0);
    fixture_begin(&other, QUOTA);
    other.config.tiers[0].medium = FB_SSD;
    fixture_end_store(&other, fixture_open(&other));
    CHECK_EQ(access(live_path, F_OK) == 0, !ours);
    CHECK_EQ(rename(away, f.root), 0);
    s = fixture_open(&f);
    CHECK_EQ(atomic_load(&s->shared->rebuilding), ours);
    while (atomic_load(&s->shared->rebuilding))
        fb_rebuild_some(s);
    CHECK(block_hit(s, 1, 0, LENGTH));
    free(live_path);
    end(s);
}

TEST(a_shared_file_is_swept_only_by_who_can_tell_that_it_is_stale)
{
    expect_swept(true);
    expect_swept(false);
}

static uint32_t descriptors_of(const char *path)
{
    uint32_t count = 0;
    for (int fd = 0; fd < 200; fd++) {
        char link[32], target[sizeof((struct fb_index_super *)0)->live_path] = {0};
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        count += readlink(link, target, sizeof target - 1) > 0 && strcmp(target, path) == 0;
    }
    return count;
}

static void *open_it(void *out)
{
    *(fb_store **)out = fixture_open(&f);
    return NULL;
}

TEST(a_shared_file_that_is_swept_while_it_is_opened_is_not_gone_on_with)
{
    fb_store *s = filled();
    char *live_path = strdup(s->super->live_path);
    fixture_kill(s);
    int fd = open(live_path, O_RDWR | O_CLOEXEC);
    CHECK_EQ(fb_byte_lock(fd, F_WRLCK, 0), 0);
    pthread_t opener;
    CHECK_EQ(pthread_create(&opener, NULL, open_it, &s), 0);
    while (descriptors_of(live_path) < 2)
        usleep(100);
    CHECK_EQ(unlink(live_path), 0);
    close(fd);
    CHECK_EQ(pthread_join(opener, NULL), 0);
    CHECK(atomic_load(&s->shared->rebuilding));
    CHECK_EQ(access(s->super->live_path, F_OK), 0);
    expect_all(s);
    free(live_path);
    end(s);
}

TEST(a_reader_without_the_right_to_write_reads)
{
    fixture_begin(&f, QUOTA);
    f.config.read_only = true;
    CHECK_NE(fixture_refused(&f, &(struct fb_error){0}), 0);
    fixture_end(&f);

    fb_store *s = filled();
    f.config.read_only = true;
    fb_store *reader = fixture_open(&f);
    struct fb_key key = key_of_number(0);
    for (uint64_t i = 0; i < BLOCKS; i++)
        CHECK(block_hit(reader, i, 0, LENGTH));
    CHECK_EQ(fb_put(reader, &key, TERMS(0, -1), "x", 1), -EROFS);
    CHECK_EQ(fb_delete(reader, &key), -EROFS);
    CHECK_EQ(fb_maintain(reader), -EROFS);
    CHECK_EQ(fb_clock_advance(reader, 1), -EROFS);
    CHECK_EQ(store_counter(s, FB_C_HIT_MEM), 0); /* its figures are its own */
    CHECK_EQ(store_counter(reader, FB_C_HIT_MEM), BLOCKS);
    fb_close(reader);
    f.config.read_only = false;
    end(s);
}

/* ---- the clock ---- */

static int64_t away_ms;

static void closed_at_another_time(struct fb_index_super *super)
{
    super->boot_id[0] ^= 1;
    super->closed_real_ms = fb_realtime_ms() - away_ms;
}

static fb_store *reopen_after(fb_store *s, int64_t milliseconds)
{
    away_ms = milliseconds;
    fb_close(s);
    change_super(closed_at_another_time);
    return fixture_open(&f);
}

TEST(a_ttl_goes_on_over_restarts)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    struct fb_key key = key_of_number(1);
    CHECK_EQ(fb_put(s, &key, TERMS(0, 3600), "x", 1), 0);
    int64_t before = fb_now_ms(s);
    fb_clock_advance(s, 1000 * 1000);
    fb_close(s);
    s = fixture_open(&f); /* in the same boot: what was advanced is kept */
    CHECK_GE(fb_now_ms(s), before + 1000 * 1000);
    CHECK_LT(fb_now_ms(s), before + 1100 * 1000);
    s = reopen_after(s, 2000 * 1000);
    CHECK_GE(fb_now_ms(s), before + 3000 * 1000);
    CHECK(fb_contains(s, &key));
    /* A wall clock set back by a day in between moves nothing. */
    int64_t seen = fb_now_ms(s);
    s = reopen_after(s, -86400 * 1000);
    CHECK_GE(fb_now_ms(s), seen);
    CHECK_LT(fb_now_ms(s), seen + 100 * 1000);
    CHECK(fb_contains(s, &key));
    s = reopen_after(s, 700 * 1000);
    CHECK(!fb_contains(s, &key));
    end(s);
}

CHECK_MAIN
