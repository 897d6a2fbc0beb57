/* A tier whose directory went away: another disk mounted in its place, or made anew after it was removed.
 *
 * The live file says which directory is the one in use, by device and inode, and counts its changes; each
 * process opens it again when it has seen an older count. Descriptors are replaced in place (dup3), so
 * that no thread ever uses a closed one. What lay in the old directory is given up: nobody can say what of
 * it reached the disk. */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "evict.h"
#include "health.h"
#include "rebuild.h"
#include "segment.h"
#include "tiers.h"

static void replace_descriptor(_Atomic int *kept, int fresh)
{
    if (*kept >= 0 && dup3(fresh, *kept, O_CLOEXEC) >= 0)
        close(fresh);
    else
        *kept = fresh;
}

/* Whether something is mounted just there; an empty mount point is not the disk that belongs on it. */
static bool is_mount_point(const char *path)
{
    char copy[FB_PATH_MAX];
    struct stat here, above;
    snprintf(copy, sizeof copy, "%s", path);
    return stat(path, &here) == 0 && stat(dirname(copy), &above) == 0 && here.st_dev != above.st_dev;
}

static void note_directory(fb_store *s, uint32_t tier)
{
    struct fb_tier_live *t = &s->shared->tiers[tier];
    struct stat st;
    if (s->tier_fds[tier] < 0 || fstat(s->tier_fds[tier], &st) != 0)
        return;
    atomic_store(&t->directory_device, (uint64_t)st.st_dev);
    atomic_store(&t->directory_inode, (uint64_t)st.st_ino);
    atomic_store(&t->on_mount_point, is_mount_point(s->super->tiers[tier].path));
    s->tier_changes[tier] = atomic_fetch_add(&t->directory_changes, 1) + 1;
}

void fb_tiers_note(fb_store *s)
{
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++)
        note_directory(s, tier);
}

static bool is_the_noted_one(fb_store *s, uint32_t tier, int fd)
{
    struct fb_tier_live *t = &s->shared->tiers[tier];
    struct stat st;
    return fstat(fd, &st) == 0 && (uint64_t)st.st_dev == atomic_load(&t->directory_device) &&
           (uint64_t)st.st_ino == atomic_load(&t->directory_inode);
}

int fb_tier_directory(fb_store *s, uint32_t tier)
{
    uint32_t changes = atomic_load(&s->shared->tiers[tier].directory_changes);
    if (fb_likely(!fb_tier_is_outdated(s, tier)) || atomic_exchange(&s->tiers_reopening, true))
        return s->tier_fds[tier];
    int lock_fd = -1, fd = fb_tier_open(s, tier, FB_TIER_JOIN, &lock_fd, NULL);
    if (fd >= 0 && is_the_noted_one(s, tier, fd)) {
        replace_descriptor(&s->tier_fds[tier], fd);
        replace_descriptor(&s->tier_locks[tier], lock_fd);
        s->tier_changes[tier] = changes;
    } else if (fd >= 0) {
        close(fd);
        close(lock_fd);
    }
    atomic_store(&s->tiers_reopening, false);
    return s->tier_fds[tier];
}

/* ---- giving up what lay in the old one ---- */

static void drop_free_file(fb_store *s, uint32_t segment)
{
    if (!fb_segment_take(s, segment, FB_FREE))
        return;
    fb_segfile_remove(s, segment);
    fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
    fb_segment_disown(s, segment);
}

/* What nobody views any more goes with its file. */
static void drop_if_unused(fb_store *s, uint32_t segment)
{
    fb_segment_unhold(s, segment);
    drop_free_file(s, segment);
}

/* Not scanned, or not to the end of. 0 or -ETIMEDOUT. */
static int abandon_unscanned(fb_store *s, uint32_t segment)
{
    if (!fb_segment_own(s, segment))
        return 0; /* whoever scans it finds that the file is gone */
    bool done = fb_segment_state_of(s, segment) != FB_UNSCANNED || fb_segment_discard(s, segment);
    fb_segment_disown(s, segment);
    drop_if_unused(s, segment);
    return done ? 0 : -ETIMEDOUT;
}

/* Whether it is RETIRING and ours now. */
static bool begin_to_abandon(fb_store *s, uint32_t segment)
{
    fb_segment_seal(s, segment);
    if (!fb_segment_own(s, segment))
        return false;
    bool retiring = fb_segment_turn(s, segment, FB_SEALED, FB_RETIRING);
    if (!retiring)
        fb_segment_disown(s, segment);
    return retiring;
}

static void end_abandoning(fb_store *s, uint32_t segment, bool swept)
{
    fb_segment_turn(s, segment, FB_RETIRING, swept ? FB_HELD : FB_SEALED);
    fb_segment_disown(s, segment);
    drop_if_unused(s, segment);
}

/* All blocks of a tier, in one pass over the index. `taken` tells which segments this call retires: that we
 * own one may be another thread's doing. 0 or -ETIMEDOUT. */
static int abandon_segments(fb_store *s, uint32_t first, uint32_t count, bool *taken)
{
    int unscanned = 0;
    for (uint32_t i = 0; i < count; i++)
        if (fb_segment_state_of(s, first + i) == FB_UNSCANNED)
            unscanned = abandon_unscanned(s, first + i) != 0 ? -ETIMEDOUT : unscanned;
        else
            taken[i] = begin_to_abandon(s, first + i);
    int r = fb_slots_sweep(s, first, count);
    for (uint32_t i = 0; i < count; i++)
        if (taken[i])
            end_abandoning(s, first + i, r == 0);
        else
            drop_free_file(s, first + i);
    return r != 0 ? r : unscanned;
}

/* 0, -ETIMEDOUT or -ENOMEM. */
static int abandon(fb_store *s, uint32_t tier)
{
    const struct fb_tier_saved *t = &s->super->tiers[tier];
    uint32_t first = t->segment_base, count = t->whole_base + t->whole_count - first;
    bool *taken = calloc(count ? count : 1, sizeof *taken);
    int r = taken == NULL ? -ENOMEM : abandon_segments(s, first, count, taken);
    free(taken);
    return r;
}

bool fb_tier_find_directory(fb_store *s, uint32_t tier)
{
    uint32_t changes = atomic_load(&s->shared->tiers[tier].directory_changes);
    int lock_fd = -1, fd = fb_tier_open(s, tier, FB_TIER_JOIN, &lock_fd, NULL);
    bool mounted_alike =
        is_mount_point(s->super->tiers[tier].path) == atomic_load(&s->shared->tiers[tier].on_mount_point);
    bool joined = fd >= 0;
    if (!joined && mounted_alike)
        fd = fb_tier_open(s, tier, FB_TIER_CLAIM, &lock_fd, NULL);
    if (fd < 0)
        return false;
    bool noted = is_the_noted_one(s, tier, fd);
    bool same = noted && s->tier_fds[tier] >= 0 && is_the_noted_one(s, tier, s->tier_fds[tier]);
    /* One that another process has noted has what was put since; and a disk that was not there when the store
     * was opened has all that it had. */
    bool untouched = noted || (joined && changes == 0);
    if (same || (!untouched && abandon(s, tier) != 0)) {
        close(fd);
        close(lock_fd);
        return same;
    }
    replace_descriptor(&s->tier_fds[tier], fd);
    replace_descriptor(&s->tier_locks[tier], lock_fd);
    if (noted)
        s->tier_changes[tier] = changes;
    else
        note_directory(s, tier);
    return true;
}
