/* What a process keeps open of segment files: maps under leases, descriptors, files that were replaced. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "evict.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u

static struct fixture f;

static fb_store *begin(uint32_t segments, uint64_t numbers[])
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    uint64_t next = 0;
    for (uint32_t i = 0; i < segments; i++) {
        numbers[i] = next;
        next = fill_segment(s, next, LENGTH);
    }
    return s;
}

static void end(fb_store *s)
{
    fixture_end_store(&f, s);
}

static bool is_file_of(fb_store *s, uint32_t segment, int fd)
{
    char path[FB_PATH_MAX];
    struct stat here, there;
    fixture_segment_path(&f, s, segment, path);
    CHECK_EQ(fstat(fd, &here), 0);
    CHECK_EQ(stat(path, &there), 0);
    return here.st_ino == there.st_ino;
}

/* The segment's file goes and another takes its number, as for a whole file or after the quota shrank. */
static void make_anew(fb_store *s, uint32_t segment)
{
    CHECK(fb_segment_own(s, segment));
    fb_segfile_remove(s, segment);
    CHECK_EQ(fb_segfile_create(s, segment), 0);
    fb_segment_disown(s, segment);
}

/* ---- maps ---- */

TEST(no_more_maps_than_the_limit_but_for_leased_ones)
{
    enum { SEGMENTS = 8 };
    uint64_t numbers[SEGMENTS];
    static struct fb_status status;
    fb_store *s = begin(SEGMENTS, numbers);
    s->maps_max = 3;
    for (int round = 0; round < 3; round++)
        for (uint32_t i = 0; i < SEGMENTS; i++) {
            CHECK(block_hit(s, numbers[i], 0, LENGTH));
            CHECK_LE(s->maps_count, 3);
        }
    struct fb_hit hits[SEGMENTS];
    for (uint32_t i = 0; i < SEGMENTS; i++)
        hits[i] = block_hold(s, numbers[i]);
    CHECK_EQ(s->maps_count, SEGMENTS);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        CHECK(hits[i].owned == NULL);
        CHECK(block_is(numbers[i], 0, hits[i].data, LENGTH));
        fb_release(s, &hits[i]);
    }
    CHECK_EQ(fb_status_read(s, &status, NULL), 0);
    CHECK_EQ(status.segments_mapped, SEGMENTS);
    CHECK_EQ(status.segments_mapped_max, 3);
    end(s);
}

TEST(a_map_of_a_file_that_was_replaced_is_not_used)
{
    uint64_t number;
    fb_store *s = begin(1, &number);
    uint32_t segment = block_segment(s, number);
    CHECK(block_hit(s, number, 0, LENGTH));
    const uint8_t *before = fb_map_base(s, segment);
    CHECK(before != NULL && fb_map_current(s, segment) == before);
    make_anew(s, segment);
    CHECK(fb_map_current(s, segment) == NULL);
    const uint8_t *after = fb_map_base(s, segment);
    CHECK(after != NULL && after[0] == 0);
    CHECK(fb_map_current(s, segment) == after);
    CHECK_EQ(s->maps_count, 1);
    end(s);
}

/* Not mapped: reading beyond the end of the file would be a SIGBUS. */
TEST(a_file_that_is_cut_short_is_a_miss)
{
    uint64_t number;
    char path[FB_PATH_MAX];
    fb_store *s = begin(1, &number), *fresh = fixture_open(&f);
    fixture_segment_path(&f, s, block_segment(s, number), path);
    CHECK_EQ(truncate(path, 4096), 0);
    CHECK(fb_map_base(fresh, 0) == NULL);
    CHECK(!block_hit(fresh, number, 0, LENGTH));
    fb_close(fresh);
    end(s);
}

TEST(something_else_of_a_segments_name_is_a_miss)
{
    uint64_t numbers[3];
    char path[FB_PATH_MAX];
    fb_store *s = begin(3, numbers), *fresh = fixture_open(&f);
    fixture_segment_path(&f, s, 0, path);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(mkfifo(path, 0600), 0);
    fixture_segment_path(&f, s, 1, path);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(mkdir(path, 0700), 0);
    fixture_segment_path(&f, s, 2, path);
    CHECK_EQ(unlink(path), 0);
    CHECK_EQ(symlink("/dev/zero", path), 0);
    for (uint32_t i = 0; i < 3; i++)
        CHECK(!block_hit(fresh, numbers[i], 0, LENGTH));
    CHECK_EQ(atomic_load(&fresh->row_leases[0]), 0);
    fb_close(fresh);
    end(s);
}

/* Recycled again and again a MEM segment is written through a map; what others read is the same. */
TEST(a_recycled_segment_is_written_through_a_map)
{
    fb_store *s = fixture_begin_store(&f, QUOTA), *other = fixture_open(&f);
    uint64_t next = 0;
    uint32_t mapped = 0;
    for (int uses = 0; uses < 8; uses++) {
        uint64_t first = next;
        next = fill_segment(s, next, LENGTH);
        for (uint64_t i = first; i < next; i++)
            CHECK(block_hit(other, i, 0, LENGTH));
        mapped += s->writable_count;
        CHECK_EQ(fb_segment_retire(s, block_segment(s, first), FB_EVICT_ALL), 0);
    }
    CHECK_GT(mapped, 0);
    store_is_sound(s);
    fb_close(other);
    end(s);
}

/* ---- descriptors ---- */

TEST(no_more_descriptors_than_the_limit_but_for_used_ones)
{
    enum { SEGMENTS = 8 };
    uint64_t numbers[SEGMENTS];
    int fds[SEGMENTS];
    fb_store *s = begin(SEGMENTS, numbers), *fresh = fixture_open(&f);
    fresh->descriptors_max = 3;
    for (int round = 0; round < 2; round++)
        for (uint32_t i = 0; i < SEGMENTS; i++) {
            int fd = fb_descriptor_get(fresh, i);
            CHECK(is_file_of(fresh, i, fd));
            fb_descriptor_put(fresh, i, fd);
            CHECK_LE(fresh->descriptors_count, 3);
        }
    for (uint32_t i = 0; i < SEGMENTS; i++)
        fds[i] = fb_descriptor_get(fresh, i);
    CHECK_EQ(fresh->descriptors_count, SEGMENTS);
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        CHECK(is_file_of(fresh, i, fds[i]));
        fb_descriptor_put(fresh, i, fds[i]);
    }
    CHECK_LT(fb_descriptor_get(fresh, SEGMENTS + 1), 0); /* there is no such file */
    int fd = fb_descriptor_get(fresh, SEGMENTS);
    CHECK_EQ(fresh->descriptors_count, 3);
    fb_descriptor_put(fresh, SEGMENTS, fd);
    fb_close(fresh);
    end(s);
}

/* Somebody is in the middle of a read of the old file: a writer of the new one must not get its descriptor.
 */
TEST(a_descriptor_in_use_is_not_handed_out_for_another_file)
{
    uint64_t number;
    fb_store *s = begin(1, &number);
    uint32_t segment = block_segment(s, number);
    int old = fb_descriptor_get(s, segment);
    CHECK(is_file_of(s, segment, old));
    make_anew(s, segment);
    int fresh = fb_descriptor_get(s, segment), again = fb_descriptor_get(s, segment);
    CHECK(!is_file_of(s, segment, old));
    CHECK(is_file_of(s, segment, fresh));
    CHECK(is_file_of(s, segment, again));
    fb_descriptor_put(s, segment, fresh);
    fb_descriptor_put(s, segment, old);
    fb_descriptor_put(s, segment, again);
    fresh = fb_descriptor_get(s, segment);
    CHECK(is_file_of(s, segment, fresh));
    fb_descriptor_put(s, segment, fresh);
    CHECK_EQ(s->maps[segment].descriptor_users, 0);
    end(s);
}

/* ---- where things lie ---- */

TEST(a_whole_files_parts_do_not_overlap)
{
    static const uint64_t sizes[] = {1, 4095, 4096, 65536, 65537, (1u << 20) + 1, 100000000};
    for (uint32_t block = FB_CHUNK_BYTES; block <= FB_BLOCK_BYTES_MAX; block *= 4)
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            uint64_t bytes = fb_whole_file_bytes(sizes[i], block), sums = (sizes[i] + 4095) & ~4095ull;
            uint64_t records = (sizes[i] + block - 1) / block * FB_RECORD_BYTES;
            uint64_t table = bytes - FB_SEGMENT_SUPER_BYTES - records;
            CHECK_EQ(bytes % 4096, 0);
            CHECK_GE(table, sums + (sizes[i] + FB_CHUNK_BYTES - 1) / FB_CHUNK_BYTES * 4);
            CHECK_LE(bytes, sizes[i] + sizes[i] / 256 + 5 * 4096);
        }
}

CHECK_MAIN
