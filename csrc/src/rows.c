#include "rows.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "failpoint.h"
#include "platform.h"

#define LOCK_WAITERS 0x80000000u
#define LOCK_OWNER 0x7fffffffu
#define LOCK_STEP_MS 100u
#define LOCK_SPINS 100

int fb_byte_lock(int fd, short type, uint64_t byte)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    int r;
    do
        r = fcntl(fd, F_OFD_SETLK, &lock);
    while (r != 0 && errno == EINTR);
    if (r == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

bool fb_byte_is_locked(int fd, uint64_t byte)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    /* When the kernel cannot say, the owner counts as alive: waiting is safe, taking over is not. */
    return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

static void raise_to(_Atomic uint32_t *word, uint32_t value)
{
    uint32_t seen = atomic_load(word);
    while (seen < value && !atomic_compare_exchange_weak(word, &seen, value))
        ;
}

/* What a row holds of a process that is gone. */
static void clear_row(fb_store *s, uint32_t row)
{
    _Atomic uint32_t *leases = s->leases + (uint64_t)row * s->segment_count;
    for (uint32_t i = 0; i < s->segment_count; i++)
        if (atomic_load_explicit(&leases[i], memory_order_relaxed) != 0)
            atomic_store(&leases[i], 0);
    atomic_store(&s->rows[row].held_bytes, 0);
    for (uint32_t tier = 0; tier < FB_TIERS_MAX; tier++)
        atomic_store(&s->rows[row].pin_claims[tier], 0);
}

int fb_row_claim(fb_store *s, int *fd_out, uint32_t *row_out)
{
    int fd = fb_open_regular(s->root_fd, "rows.lock", O_RDWR, 0);
    if (fd < 0)
        return fd;
    for (uint32_t row = 0; row < s->super->row_count; row++) {
        if (fb_byte_lock(fd, F_WRLCK, row) != 0)
            continue;
        FB_POINT("row.claimed");
        clear_row(s, row);
        atomic_fetch_add(&s->rows[row].incarnation, 1);
        raise_to(&s->shared->rows_high, row + 1);
        *fd_out = fd;
        *row_out = row;
        return 0;
    }
    close(fd);
    return -EAGAIN;
}

void fb_row_describe(fb_store *s, uint32_t row)
{
    struct fb_row *r = &s->rows[row];
    atomic_store(&r->pid, (int32_t)getpid());
    int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    char name[sizeof r->name] = {0};
    if (fd >= 0) {
        ssize_t n = read(fd, name, sizeof name - 1);
        close(fd);
        if (n > 0 && name[n - 1] == '\n')
            name[n - 1] = 0;
    }
    memcpy(r->name, name, sizeof name);
}

uint32_t fb_row_word(fb_store *s, uint32_t row)
{
    return (row + 1) | (atomic_load(&s->rows[row].incarnation) & 0x7fffu) << 16;
}

bool fb_owner_is_dead(fb_store *s, uint32_t word)
{
    uint32_t row = (word & 0xffffu) - 1;
    if ((word & LOCK_OWNER) == 0)
        return false;
    if (row >= s->super->row_count)
        return true;
    return fb_row_word(s, row) != (word & LOCK_OWNER) || !fb_byte_is_locked(s->probe_fd, row);
}

bool fb_owner_leases(fb_store *s, uint32_t word, uint32_t segment)
{
    uint32_t row = (word & 0xffffu) - 1;
    return row < s->super->row_count &&
           atomic_load(&s->leases[(uint64_t)row * s->segment_count + segment]) != 0 &&
           !fb_owner_is_dead(s, word);
}

/* A dead row's counts are cleared under its lock, so that no new owner is disturbed; and under a mutex that
 * fork takes, or a child would keep that lock for life, and the dead owner would count as alive. */
static bool clear_if_dead(fb_store *s, uint32_t row)
{
    pthread_mutex_lock(&s->maps_lock);
    int fd = fb_open_regular(s->root_fd, "rows.lock", O_RDWR, 0);
    bool dead = fd >= 0 && fb_byte_lock(fd, F_WRLCK, row) == 0;
    /* A word with the old incarnation is a dead owner's, whoever holds the row's lock meanwhile. */
    if (dead)
        atomic_fetch_add(&s->rows[row].incarnation, 1);
    FB_POINT("row.reclaimed");
    if (dead)
        clear_row(s, row);
    if (fd >= 0)
        close(fd);
    pthread_mutex_unlock(&s->maps_lock);
    return dead;
}

static bool row_leases(fb_store *s, uint32_t row, uint32_t segment)
{
    if (atomic_load(&s->leases[(uint64_t)row * s->segment_count + segment]) == 0)
        return false;
    if (fb_byte_is_locked(s->probe_fd, row))
        return true;
    return !clear_if_dead(s, row);
}

bool fb_segment_is_leased(fb_store *s, uint32_t segment)
{
    uint32_t rows = atomic_load(&s->shared->rows_high);
    for (uint32_t row = 0; row < rows; row++)
        if (row_leases(s, row, segment))
            return true;
    return false;
}

static int lock_slowly(fb_store *s, fb_lockword *lock, uint32_t timeout_ms)
{
    int64_t waited_ms = 0;
    for (;;) {
        uint32_t seen = atomic_load(lock);
        if (seen == 0) {
            /* We may not be the only one who waited, so the bit stays. */
            if (atomic_compare_exchange_strong(lock, &seen, s->me | LOCK_WAITERS))
                return 0;
            continue;
        }
        if (!(seen & LOCK_WAITERS)) {
            if (!atomic_compare_exchange_strong(lock, &seen, seen | LOCK_WAITERS))
                continue;
            seen |= LOCK_WAITERS;
        }
        if (fb_owner_is_dead(s, seen)) {
            if (atomic_compare_exchange_strong(lock, &seen, s->me | LOCK_WAITERS)) {
                fb_count(s, FB_C_LOCK_TAKEOVERS, 1);
                return -EOWNERDEAD;
            }
            continue;
        }
        if (waited_ms >= (int64_t)timeout_ms)
            return -ETIMEDOUT;
        int64_t begun_ms = fb_boottime_ms();
        fb_futex_wait(lock, seen, LOCK_STEP_MS);
        /* Where a step takes longer the machine stood still, and the owner with it. */
        int64_t step_ms = fb_boottime_ms() - begun_ms;
        waited_ms += step_ms < (int64_t)LOCK_STEP_MS ? step_ms : (int64_t)LOCK_STEP_MS;
    }
}

int fb_lock(fb_store *s, fb_lockword *lock, uint32_t timeout_ms)
{
    for (int i = 0; i < LOCK_SPINS; i++) {
        uint32_t expected = 0;
        if (atomic_compare_exchange_weak(lock, &expected, s->me))
            return 0;
        fb_pause();
    }
    return lock_slowly(s, lock, timeout_ms);
}

bool fb_try_lock(fb_store *s, fb_lockword *lock)
{
    uint32_t expected = 0;
    return atomic_compare_exchange_strong(lock, &expected, s->me);
}

void fb_unlock(fb_lockword *lock)
{
    if (atomic_exchange(lock, 0) & LOCK_WAITERS)
        fb_futex_wake(lock, 1);
}
