/* Forked children: rows and leases of their own, views that live on, and what stays the parent's. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "evict.h"
#include "rows.h"
#include "store_fixture.h"

#define QUOTA (16 * MIB)
#define LENGTH 60000u

static struct fixture f;
static int to_child[2], to_parent[2];

static void tell(int pipe_ends[2])
{
    CHECK_EQ(write(pipe_ends[1], "", 1), 1);
}

static void await(int pipe_ends[2])
{
    char byte;
    CHECK_EQ(read(pipe_ends[0], &byte, 1), 1);
}

static pid_t forked(void)
{
    CHECK_EQ(pipe(to_child), 0);
    CHECK_EQ(pipe(to_parent), 0);
    pid_t child = fork();
    CHECK_GE(child, 0);
    return child;
}

static void expect_well(pid_t child)
{
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int end = 0; end < 2; end++) {
        close(to_child[end]);
        close(to_parent[end]);
    }
}

static struct fb_hit keep(fb_store *s, uint64_t number)
{
    struct fb_hit hit = block_hold(s, number);
    CHECK(hit.owned == NULL);
    fb_hold(s, hit.segment);
    return hit;
}

static void let_go(fb_store *s, struct fb_hit *hit)
{
    fb_unhold(s, hit->segment);
    fb_release(s, hit);
}

static uint64_t views_kept(const fb_store *s)
{
    uint64_t kept = 0;
    for (uint32_t i = 0; i < s->segment_count; i++)
        kept += s->held[i];
    return kept;
}

TEST(a_view_lives_on_in_a_child_with_a_row_of_its_own)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_segment(s, 0, LENGTH);
    struct fb_hit one = keep(s, 3), two = keep(s, 4), gone = block_hold(s, 5); /* the last is not kept */
    uint32_t row = s->row, word = s->me, segment = one.segment;
    pid_t child = forked();
    if (child == 0) {
        CHECK_NE(s->row, row);
        CHECK_NE(s->me, word);
        CHECK_EQ(atomic_load(&s->row_leases[segment]), 2);
        CHECK_EQ(atomic_load(&s->rows[s->row].pid), getpid());
        tell(to_parent);
        await(to_child);
        CHECK(block_is(3, 0, one.data, LENGTH));
        CHECK(!block_hit(s, 3, 0, LENGTH));
        let_go(s, &one);
        let_go(s, &two);
        CHECK_EQ(views_kept(s), 0);
        CHECK_EQ(atomic_load(&s->row_leases[segment]), 0);
        CHECK(block_put(s, 100, 0, LENGTH));
        _exit(0);
    }
    await(to_parent);
    CHECK_EQ(s->row, row);
    fb_release(s, &gone);
    let_go(s, &one);
    let_go(s, &two);
    CHECK_EQ(atomic_load(&s->row_leases[segment]), 0);
    CHECK_EQ(fb_segment_retire(s, segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_segment_state_of(s, segment), FB_HELD); /* by the child */
    tell(to_child);
    expect_well(child);
    CHECK(fb_segment_unhold(s, segment));
    CHECK(block_hit(s, 100, 0, LENGTH));
    fixture_end_store(&f, s);
}

TEST(leases_of_a_child_that_is_killed_are_cleared)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    fill_segment(s, 0, LENGTH);
    struct fb_hit hit = keep(s, 3);
    pid_t child = forked();
    if (child == 0) {
        tell(to_parent);
        pause();
        _exit(1);
    }
    await(to_parent);
    let_go(s, &hit);
    CHECK(fb_segment_is_leased(s, hit.segment));
    CHECK_EQ(kill(child, SIGKILL), 0);
    CHECK_EQ(waitpid(child, NULL, 0), child);
    CHECK(!fb_segment_is_leased(s, hit.segment));
    fixture_end_store(&f, s);
}

TEST(with_a_full_table_the_parents_row_holds_the_childs_views)
{
    fixture_begin(&f, QUOTA);
    f.config.row_count = 2;
    fb_store *s = fixture_open(&f), *other = fixture_open(&f);
    fill_segment(s, 0, LENGTH);
    CHECK(block_put(s, 100, 0, LENGTH));
    struct fb_hit hit = keep(s, 3);
    uint32_t segment = hit.segment;
    pid_t child = forked();
    if (child == 0) {
        CHECK(!s->has_row);
        tell(to_parent);
        await(to_child);
        CHECK(block_is(3, 0, hit.data, LENGTH));
        let_go(s, &hit);
        struct fb_hit copy = block_hold(s, 100);
        CHECK(copy.owned != NULL);
        CHECK(block_is(100, 0, copy.data, LENGTH));
        fb_release(s, &copy);
        CHECK(!block_put(s, 101, 0, LENGTH));
        fb_close(s);
        _exit(0);
    }
    await(to_parent);
    let_go(s, &hit);
    CHECK_EQ(fb_segment_retire(other, segment, FB_EVICT_ALL), 0);
    CHECK_EQ(fb_segment_state_of(other, segment), FB_HELD);
    fixture_kill(s); /* the child keeps the row alive */
    CHECK(!fb_segment_unhold(other, segment));
    tell(to_child);
    expect_well(child);
    CHECK(fb_segment_unhold(other, segment));
    CHECK(block_hit(other, 100, 0, LENGTH));
    store_is_sound(other);
    fixture_end_store(&f, other);
}

/* A reservation, a whole file and a flight that were begun before the fork are the parent's to end. */
static void expect_parents_work_untouched(uint32_t row_count)
{
    fixture_begin(&f, 64 * MIB);
    f.config.row_count = row_count;
    f.config.block_bytes = 256u << 10;
    fb_store *s = fixture_open(&f), *other = fixture_open(&f);
    struct fb_key key = key_of_number(1), file = key_of_number(2), flown = key_of_number(3);
    struct fb_fill fill;
    struct fb_whole whole;
    struct fb_flight_ticket ticket, follower;
    CHECK_EQ(fb_reserve(s, &key, TERMS(0, -1), LENGTH, &fill), 0);
    CHECK_EQ(fb_whole_begin(s, &file, TERMS(0, -1), 2 * MIB, 256u << 10, &whole), 0);
    CHECK_EQ(fb_flight_begin(s, &flown, &ticket), 0);
    uint32_t segment = fill.segment;
    pid_t child = forked();
    if (child == 0) {
        CHECK_EQ(s->has_row, row_count > 2);
        fb_whole_abandon(s, &whole);
        fb_flight_end(s, &ticket);
        fb_fill_abandon(s, &fill);
        CHECK_EQ(fill.segment, FB_NO_SEGMENT);
        _exit(0);
    }
    expect_well(child);
    CHECK_EQ(fb_flight_begin(other, &flown, &follower), -EALREADY);
    fb_flight_end(s, &ticket);
    CHECK_EQ(fb_flight_begin(other, &flown, &follower), 0);
    fb_flight_end(other, &follower);
    CHECK_EQ(fb_segment_state_of(s, whole.segment), FB_OPEN);
    fb_whole_abandon(s, &whole);
    CHECK_EQ(atomic_load(&s->row_leases[segment]), 1);
    block_bytes(1, 0, fill.data, LENGTH);
    CHECK_EQ(fb_fill_commit(s, &fill), 0);
    CHECK_EQ(atomic_load(&s->row_leases[segment]), 0);
    CHECK(block_hit(other, 1, 0, LENGTH));
    store_is_sound(s);
    fb_close(other);
    fixture_end_store(&f, s);
}

TEST(what_the_parent_began_is_the_parents_to_end)
{
    expect_parents_work_untouched(8);
}

TEST(also_for_a_child_without_a_row)
{
    expect_parents_work_untouched(2);
}

TEST(every_open_store_is_taken_along)
{
    fb_store *a = fixture_begin_store(&f, QUOTA), *b = fixture_open(&f);
    f.config.read_only = true;
    fb_store *reader = fixture_open(&f);
    f.config.read_only = false;
    CHECK(block_put(a, 1, 0, LENGTH));
    pid_t child = forked();
    if (child == 0) {
        CHECK_EQ(a->row + b->row, 2 + 3);
        CHECK(block_hit(a, 1, 0, LENGTH));
        CHECK(block_hit(reader, 1, 0, LENGTH));
        CHECK(block_put(b, 2, 0, LENGTH));
        fb_close(reader);
        fb_close(b);
        fb_close(a);
        _exit(0);
    }
    expect_well(child);
    CHECK(block_hit(a, 2, 0, LENGTH));
    fb_close(reader);
    fb_close(b);
    fixture_end_store(&f, a);
}

TEST(a_store_is_open_as_long_as_a_child_has_it_open)
{
    fb_store *s = fixture_begin_store(&f, QUOTA);
    CHECK(block_put(s, 1, 0, LENGTH));
    pid_t child = forked();
    if (child == 0) {
        tell(to_parent);
        await(to_child);
        CHECK(block_hit(s, 1, 0, LENGTH));
        fb_close(s);
        _exit(0);
    }
    await(to_parent);
    fb_close(s);
    s = fixture_open(&f);
    CHECK_EQ(s->row, 0);
    CHECK(fb_byte_is_locked(s->probe_fd, 1)); /* joined, not recovered */
    CHECK_EQ(atomic_load(&s->shared->verify_generation), 1);
    tell(to_child);
    expect_well(child);
    CHECK(!fb_byte_is_locked(s->probe_fd, 1));
    CHECK(block_hit(s, 1, 0, LENGTH));
    fixture_end_store(&f, s);
}

TEST(the_maintainer_stays_the_parents)
{
    fixture_begin(&f, QUOTA);
    f.config.no_maintainer = false;
    fb_store *s = fixture_open(&f), *other = fixture_open(&f);
    CHECK(block_put(s, 1, 0, LENGTH));
    CHECK(fb_byte_is_locked(s->probe_fd, FB_MAINTAINER_BYTE(s)));
    CHECK_EQ(fb_maintain(other), -EBUSY);
    pid_t child = forked();
    if (child == 0) {
        CHECK_EQ(fb_maintain(s), -EBUSY);
        CHECK(block_hit(s, 1, 0, LENGTH));
        _exit(0);
    }
    expect_well(child);
    CHECK_EQ(fb_maintain(other), -EBUSY);
    fb_close(s);
    CHECK_EQ(fb_maintain(other), 0);
    fixture_end_store(&f, other);
}

CHECK_MAIN
