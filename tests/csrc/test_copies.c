/* Copies into new memory: the right bytes, wherever the buffers lie, and nothing beside them. */
#include "forebay/copies.h"

#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "check.h"

#define MIB ((size_t)1 << 20)
#define ROOM_BYTES (48 * MIB)
#define COPIES_MAX 1024
#define UNTOUCHED 0

/* Room that has no pages yet. */
static uint8_t *new_room(void)
{
    uint8_t *room =
        mmap(NULL, ROOM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(room != MAP_FAILED);
    return room;
}

static uint8_t *source(void)
{
    uint8_t *bytes = malloc(ROOM_BYTES);
    CHECK(bytes != NULL);
    for (size_t i = 0; i < ROOM_BYTES; i++)
        bytes[i] = (uint8_t)(1 + i * 2654435761u % 251);
    return bytes;
}

/* Copy to places step_bytes apart, from first_offset on, upwards or downwards; look at every byte. */
static void copy_and_look(size_t length_bytes, size_t step_bytes, size_t first_offset, bool downwards)
{
    static struct fb_copy copies[COPIES_MAX];
    uint8_t *from = source(), *room = new_room();
    uint32_t count = (uint32_t)((ROOM_BYTES - first_offset) / step_bytes);
    count = count > COPIES_MAX ? COPIES_MAX : count;
    for (uint32_t i = 0; i < count; i++) {
        size_t at = first_offset + step_bytes * (downwards ? count - 1 - i : i);
        copies[i] = (struct fb_copy){room + at, from + i, i % 7 == 6 ? length_bytes / 3 : length_bytes};
    }
    fb_copy_many(copies, count);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *to = copies[i].to;
        CHECK(memcmp(to, copies[i].from, copies[i].length_bytes) == 0);
        for (size_t behind = copies[i].length_bytes; behind < step_bytes; behind++)
            CHECK_EQ(to[behind], UNTOUCHED);
    }
    for (size_t i = 0; i < first_offset; i++)
        CHECK_EQ(room[i], UNTOUCHED);
    munmap(room, ROOM_BYTES);
    free(from);
}

TEST(neighbours_upwards_and_downwards)
{
    copy_and_look(102400, 102448, 48, false);
    copy_and_look(102400, 102448, 48, true);
    copy_and_look(MIB, MIB + 4096, 48, true);
}

TEST(more_than_the_caches_hold)
{
    copy_and_look(200000, 200063, 17, false);
    copy_and_look(40 * MIB, 40 * MIB, 1, false);
}

TEST(small_apart_and_empty)
{
    copy_and_look(4096, 4128, 32, false);
    copy_and_look(10000, 30000, 5, false);
    copy_and_look(1, 40000, 3, true);
    copy_and_look(0, 4096, 0, false);
    fb_copy_many(NULL, 0);
}

TEST(asks_for_no_page_that_holds_nothing_of_the_copies)
{
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE), pages = ROOM_BYTES / page_bytes;
    uint8_t *from = source(), *room = new_room(), *state = malloc(pages);
    struct fb_copy copies[] = {{room + 5 * MIB + 100, from, 9 * MIB},
                               {room + 20 * MIB, from, 10 * page_bytes}};
    CHECK(state != NULL);
    fb_copy_many(copies, 2);
    CHECK_EQ(mincore(room, ROOM_BYTES, state), 0);
    for (size_t i = 0; i < pages; i++) {
        bool first = i >= 5 * MIB / page_bytes && i <= (14 * MIB + 99) / page_bytes;
        bool second = i >= 20 * MIB / page_bytes && i < 20 * MIB / page_bytes + 10;
        CHECK_EQ(state[i] & 1, first || second);
    }
    munmap(room, ROOM_BYTES);
    free(state);
    free(from);
}

/* The last one: a refusal is remembered. */
TEST(where_huge_pages_are_refused)
{
    CHECK_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
    copy_and_look(102400, 102448, 48, false);
    copy_and_look(102400, 102448, 48, false);
}

CHECK_MAIN
