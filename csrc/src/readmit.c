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
    if (fb_likely(s->tier_changes[tier] == changes) || atomic_exchange(&s->tiers_reopening, true))
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

static void drop_unused_file(fb_store *s, uint32_t segment, uint32_t state)
{
    if (!fb_segment_own(s, segment))
        return;
    if (fb_segment_turn(s, segment, state, FB_CREATING)) {
        fb_segfile_remove(s, segment);
        fb_segment_turn(s, segment, FB_CREATING, FB_ABSENT);
    }
    fb_segment_disown(s, segment);
}

static void begin_to_abandon(fb_store *s, uint32_t segment)
{
    uint32_t state = fb_segment_state_of(s, segment);
    if (state == FB_OPEN)
        fb_segment_seal(s, segment);
    if (state == FB_FREE || state == FB_UNSCANNED)
        drop_unused_file(s, segment, state);
    else if (fb_segment_own(s, segment) && !fb_segment_turn(s, segment, FB_SEALED, FB_RETIRING))
        fb_segment_disown(s, segment);
}

static void end_abandoning(fb_store *s, uint32_t segment, bool swept)
{
    if (atomic_load(&s->segments[segment].owner) != s->me)
        return;
    if (!fb_segment_turn(s, segment, FB_RETIRING, swept ? FB_HELD : FB_SEALED))
        return;
    fb_segment_disown(s, segment);
    fb_segment_unhold(s, segment);
    drop_unused_file(s, segment, FB_FREE);
}

/* All blocks of a tier, in one pass over the index. 0 or -ETIMEDOUT. */
static int abandon(fb_store *s, uint32_t tier)
{
    const struct fb_tier_saved *t = &s->super->tiers[tier];
    uint32_t first = t->segment_base, end = t->whole_base + t->whole_count;
    for (uint32_t segment = first; segment < end; segment++)
        begin_to_abandon(s, segment);
    int r = fb_slots_sweep(s, first, end - first);
    for (uint32_t segment = first; segment < end; segment++)
        end_abandoning(s, segment, r == 0);
    return r;
}

bool fb_tier_find_directory(fb_store *s, uint32_t tier)
{
    int lock_fd = -1, fd = fb_tier_open(s, tier, FB_TIER_JOIN, &lock_fd, NULL);
    bool mounted_alike =
        is_mount_point(s->super->tiers[tier].path) == atomic_load(&s->shared->tiers[tier].on_mount_point);
    bool joined = fd >= 0;
    if (!joined && mounted_alike)
        fd = fb_tier_open(s, tier, FB_TIER_CLAIM, &lock_fd, NULL);
    if (fd < 0)
        return false;
    bool same = s->tier_fds[tier] >= 0 && is_the_noted_one(s, tier, fd) &&
                is_the_noted_one(s, tier, s->tier_fds[tier]);
    /* A disk that was not there when the store was opened has all that it had. */
    bool untouched = joined && atomic_load(&s->shared->tiers[tier].directory_changes) == 0;
    if (same || (!untouched && abandon(s, tier) != 0)) {
        close(fd);
        close(lock_fd);
        return same;
    }
    replace_descriptor(&s->tier_fds[tier], fd);
    replace_descriptor(&s->tier_locks[tier], lock_fd);
    note_directory(s, tier);
    return true;
}
