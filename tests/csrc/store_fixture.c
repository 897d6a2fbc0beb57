/* See store_fixture.h. */
#include "store_fixture.h"

#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

#include "platform.h"
#include "quota.h"

static void add_tier_at(struct fixture *f, enum fb_medium medium, uint64_t quota_bytes)
{
    struct fb_tier_config *tier = &f->config.tiers[f->config.tier_count];
    *tier = (struct fb_tier_config){
        .quota_bytes = quota_bytes, .medium = medium, .high_permille = 950, .low_permille = 900};
    char path[FB_PATH_MAX];
    CHECK_LT(snprintf(path, sizeof path, "%s/tier%u", f->root, f->config.tier_count++), FB_PATH_MAX);
    memcpy(tier->path, path, sizeof path);
}

void fixture_begin(struct fixture *f, uint64_t quota_bytes)
{
    *f = (struct fixture){.root = "/dev/shm/forebay-test-XXXXXX"};
    CHECK(mkdtemp(f->root) != NULL);
    f->config = (struct fb_config){.row_count = 8,
                                   .block_bytes = 4u << 20,
                                   .checksum = FB_CHECKSUM_LOAD,
                                   .no_maintainer = true,
                                   .stall_timeout_ms = 5000,
                                   .file_mode = 0600,
                                   .group_id = -1,
                                   .promote_bytes_per_second = 64 * MIB};
    memcpy(f->config.path, f->root, strlen(f->root));
    strcat(f->config.path, "/cache");
    add_tier_at(f, FB_MEM, quota_bytes);
}

void fixture_add_tier(struct fixture *f, enum fb_medium medium, uint64_t quota_bytes)
{
    add_tier_at(f, medium, quota_bytes);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk)
{
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

/* A handle that was killed leaves the shared file, which may lie outside of the directory. */
static void remove_live(const struct fixture *f)
{
    static struct fb_index_super super;
    char path[FB_PATH_MAX];
    fixture_path(f, "index", path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (fb_pread_all(fd, &super, sizeof super, 0) == 0 && super.magic == FB_INDEX_MAGIC)
        unlink(super.live_path);
    close(fd);
}

int fixture_remove_tree(const char *path)
{
    return nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

void fixture_remove_tier(const struct fixture *f, uint32_t tier)
{
    CHECK_EQ(fixture_remove_tree(f->config.tiers[tier].path), 0);
}

void fixture_end(struct fixture *f)
{
    remove_live(f);
    CHECK_EQ(fixture_remove_tree(f->root), 0);
}

fb_store *fixture_open(const struct fixture *f)
{
    fb_store *s = NULL;
    struct fb_error error;
    if (fb_open(&f->config, &s, &error) != 0) {
        fprintf(stderr, "fb_open: %d: %s\n", error.code, error.message);
        abort();
    }
    return s;
}

fb_store *fixture_begin_store(struct fixture *f, uint64_t quota_bytes)
{
    fixture_begin(f, quota_bytes);
    return fixture_open(f);
}

void fixture_end_store(struct fixture *f, fb_store *s)
{
    fb_close(s);
    fixture_end(f);
}

int fixture_refused(const struct fixture *f, struct fb_error *error)
{
    fb_store *s = NULL;
    int r = fb_open(&f->config, &s, error);
    CHECK_NE(r, 0);
    CHECK_EQ(error->code, r);
    CHECK(strlen(error->message) > 0);
    return r;
}

void fixture_die(fb_store *s)
{
    close(s->rows_fd);
    s->rows_fd = -1;
    close(s->open_fd);
    s->open_fd = -1;
}

void fixture_kill(fb_store *s)
{
    if (s->rows_fd >= 0)
        fixture_die(s);
    s->has_row = false; /* so that closing it writes nothing */
    fb_close(s);
}

void fixture_path(const struct fixture *f, const char *name, char out[FB_PATH_MAX])
{
    CHECK_LT(snprintf(out, FB_PATH_MAX, "%s/v%u/%s", f->config.path, FB_FORMAT, name), FB_PATH_MAX);
}

void fixture_tier_path(const struct fixture *f, uint32_t tier, const char *name, char out[FB_PATH_MAX])
{
    CHECK_LT(snprintf(out, FB_PATH_MAX, "%s/tier%u/v%u/%s", f->root, tier, FB_FORMAT, name), FB_PATH_MAX);
}

void fixture_segment_path(const struct fixture *f, fb_store *s, uint32_t segment, char out[FB_PATH_MAX])
{
    char name[32];
    fb_segfile_name(s, segment, name);
    fixture_tier_path(f, s->segment_tier[segment], name, out);
}

void fixture_damage(const char *path, uint64_t offset, const void *data, size_t length_bytes)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHECK_GE(fd, 0);
    CHECK_EQ(fb_pwrite_all(fd, data, length_bytes, offset), 0);
    close(fd);
}

/* ---- blocks ---- */

/* SplitMix64: distinct numbers give distinct, well spread words. */
static uint64_t mix(uint64_t n)
{
    n += 0x9e3779b97f4a7c15u;
    n = (n ^ n >> 30) * 0xbf58476d1ce4e5b9u;
    n = (n ^ n >> 27) * 0x94d049bb133111ebu;
    return n ^ n >> 31;
}

struct fb_key key_of_number(uint64_t number)
{
    return (struct fb_key){.hi = mix(number + 1), .lo = mix(~number), .check = mix(number << 20)};
}

struct fb_key key_at(uint32_t lo_top, uint32_t lo_bottom, uint64_t check)
{
    return (struct fb_key){.hi = check, .lo = (uint64_t)lo_top << 32 | lo_bottom, .check = check};
}

void block_bytes(uint64_t number, uint32_t version, uint8_t *out, uint64_t length_bytes)
{
    uint64_t word = mix(number * 64 + version);
    for (uint64_t i = 0; i < length_bytes; i += 8, word += 0x0101010101010101u)
        memcpy(out + i, &word, length_bytes - i < 8 ? length_bytes - i : 8);
}

bool block_is(uint64_t number, uint32_t version, const uint8_t *data, uint64_t length_bytes)
{
    uint64_t word = mix(number * 64 + version);
    for (uint64_t i = 0; i < length_bytes; i += 8, word += 0x0101010101010101u)
        if (memcmp(data + i, &word, length_bytes - i < 8 ? length_bytes - i : 8) != 0)
            return false;
    return true;
}

bool block_put(fb_store *s, uint64_t number, uint32_t version, uint64_t length_bytes)
{
    struct fb_key key = key_of_number(number);
    uint8_t *data = malloc(length_bytes + 1);
    CHECK(data != NULL);
    block_bytes(number, version, data, length_bytes);
    int r = fb_put(s, &key, TERMS(0, -1), data, length_bytes);
    CHECK(r == 0 || r == -ENOSPC);
    free(data);
    return r == 0;
}

bool block_hit(fb_store *s, uint64_t number, uint32_t version, uint64_t length_bytes)
{
    struct fb_key key = key_of_number(number);
    struct fb_hit hit;
    int r = fb_get(s, &key, NOBODY, false, &hit);
    CHECK(r == 0 || r == -ENOENT);
    if (r != 0)
        return false;
    CHECK_EQ(hit.length_bytes, length_bytes);
    CHECK(block_is(number, version, hit.data, length_bytes));
    fb_release(s, &hit);
    return true;
}

void blocks_hit(fb_store *s, uint64_t first, uint64_t end, uint64_t length_bytes)
{
    for (uint64_t number = first; number < end; number++)
        CHECK(block_hit(s, number, 0, length_bytes));
}

struct fb_hit block_hold(fb_store *s, uint64_t number)
{
    struct fb_key key = key_of_number(number);
    struct fb_hit hit = {.length_bytes = 0};
    CHECK_EQ(fb_get(s, &key, NOBODY, false, &hit), 0);
    return hit;
}

struct fb_fill block_reserve(fb_store *s, uint64_t number, uint64_t length_bytes)
{
    struct fb_key key = key_of_number(number);
    struct fb_fill fill = {.segment = FB_NO_SEGMENT};
    CHECK_EQ(fb_reserve(s, &key, TERMS(0, -1), length_bytes, &fill), 0);
    return fill;
}

void block_delete(fb_store *s, uint64_t number)
{
    struct fb_key key = key_of_number(number);
    CHECK_EQ(fb_delete(s, &key), 0);
}

struct fb_found block_found(fb_store *s, uint64_t number)
{
    struct fb_key key = key_of_number(number);
    struct fb_found found = {.page = UINT32_MAX};
    CHECK_EQ(fb_index_find(s, &key, &found), 0);
    return found;
}

uint32_t block_segment(fb_store *s, uint64_t number)
{
    return FB_PLACE_SEGMENT(block_found(s, number).place);
}

void block_damage(const struct fixture *f, fb_store *s, uint64_t number, uint64_t offset)
{
    char path[FB_PATH_MAX];
    uint64_t place = block_found(s, number).place;
    uint8_t wrong = 0xa5;
    fixture_segment_path(f, s, FB_PLACE_SEGMENT(place), path);
    fixture_damage(path, ((uint64_t)FB_PLACE_UNIT(place) << FB_UNIT_SHIFT) + offset, &wrong, 1);
}

uint64_t fill_segment(fb_store *s, uint64_t first, uint64_t length_bytes)
{
    uint64_t number = first;
    CHECK(block_put(s, number++, 0, length_bytes));
    uint32_t segment = block_segment(s, first);
    for (;; number++) {
        CHECK(block_put(s, number, 0, length_bytes));
        if (block_segment(s, number) != segment)
            break;
    }
    block_delete(s, number);
    CHECK_EQ(fb_segment_state_of(s, segment), FB_SEALED);
    return number;
}

uint64_t fill_segments(fb_store *s, uint32_t count, uint64_t first, uint64_t length_bytes)
{
    for (; count > 0; count--)
        first = fill_segment(s, first, length_bytes);
    return first;
}

/* ---- the whole store ---- */

/* What quotas go by is never too low. */
static void committed_sums_hold(fb_store *s)
{
    static struct fb_dataset_status datasets[FB_STATUS_DATASETS_MAX];
    static struct fb_status status;
    CHECK_EQ(fb_status_read(s, &status, datasets), 0);
    for (uint32_t i = 0; i < status.dataset_count; i++) {
        uint32_t slot = fb_dataset_slot(s, datasets[i].id, false);
        if (slot != FB_DATASETS_MAX)
            CHECK_GE(fb_quota_used(s, &s->datasets[slot]), datasets[i].committed_bytes);
    }
}

void store_is_sound(fb_store *s)
{
    committed_sums_hold(s);
    struct fb_check_report report;
    CHECK_EQ(fb_check(s, false, true, &report), 0);
    if (report.bad_pages + report.bad_slots + report.bad_checksums != 0)
        fprintf(stderr, "fb_check: %s\n", report.first);
    CHECK_EQ(report.bad_pages, 0);
    CHECK_EQ(report.bad_slots, 0);
    CHECK_EQ(report.bad_checksums, 0);
}

uint64_t store_blocks(fb_store *s)
{
    static struct fb_status status;
    CHECK_EQ(fb_status_read(s, &status, NULL), 0);
    return status.blocks;
}

uint64_t store_counter(fb_store *s, enum fb_counter counter)
{
    static struct fb_status status;
    CHECK_EQ(fb_status_read(s, &status, NULL), 0);
    return status.counters[counter];
}
