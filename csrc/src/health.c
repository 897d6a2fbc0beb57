#include "health.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cgroup.h"
#include "platform.h"
#include "tiers.h"

#define FAULT_WINDOW_MS 5000
#define FAULTS_MAX 3u
#define PROBES_CLEAN 3u
#define CGROUP_READING_MS 20
#define CGROUP_READING_SHARE 16u
#define PROBE_NAME ".probe"

bool fb_error_is_own(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EFBIG:
    case EINTR:
    case EACCES:
    case EPERM:
        return true;
    default:
        return false;
    }
}

static bool is_of_one_file(int error)
{
    switch (error) {
    case ENOENT:
    case EBADMSG:
    case EEXIST:
    case EISDIR:
    case ELOOP:
    case ENOTSUP:
    case ENXIO: /* a socket, or a device that is none */
        return true;
    default:
        return false;
    }
}

static bool directory_is_gone(fb_store *s, uint32_t tier)
{
    struct stat st;
    return !fb_tier_is_outdated(s, tier) &&
           (s->tier_fds[tier] < 0 || fstat(s->tier_fds[tier], &st) != 0 || st.st_nlink == 0);
}

void fb_tier_fault(fb_store *s, uint32_t tier, int error)
{
    struct fb_tier_live *t = &s->shared->tiers[tier];
    bool gone = error == ENOENT && directory_is_gone(s, tier);
    if (fb_error_is_own(error) || (is_of_one_file(error) && !gone))
        return;
    fb_count(s, FB_C_IO_ERRORS, 1);
    if (s->read_only)
        return;
    int64_t now = fb_boottime_ms();
    if (now - atomic_load(&t->failed_ms) > FAULT_WINDOW_MS)
        atomic_store(&t->faults, 0);
    atomic_store(&t->failed_ms, now);
    atomic_store(&t->error, (uint32_t)error);
    uint32_t faults = atomic_fetch_add(&t->faults, 1) + 1;
    if (error == EROFS || gone || faults >= FAULTS_MAX) {
        atomic_store(&t->clean_probes, 0);
        atomic_store(&t->failed, 1);
    }
}

static bool probe_once(int directory)
{
    char out[512], in[512];
    memset(out, 0x5a, sizeof out);
    int fd = openat(directory, PROBE_NAME, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return false;
    bool clean = fb_pwrite_all(fd, out, sizeof out, 0) == 0 && fdatasync(fd) == 0 &&
                 fb_pread_all(fd, in, sizeof in, 0) == 0 && memcmp(out, in, sizeof in) == 0;
    close(fd);
    return unlinkat(directory, PROBE_NAME, 0) == 0 && clean;
}

void fb_tier_probe(fb_store *s, uint32_t tier)
{
    struct fb_tier_live *t = &s->shared->tiers[tier];
    if (!fb_tier_failed(s, tier))
        return;
    if (!fb_tier_find_directory(s, tier) || !probe_once(s->tier_fds[tier])) {
        atomic_store(&t->clean_probes, 0);
    } else if (atomic_fetch_add(&t->clean_probes, 1) + 1 >= PROBES_CLEAN) {
        atomic_store(&t->faults, 0);
        atomic_store(&t->error, 0);
        atomic_store(&t->failed, 0);
    }
}

/* Reading the groups takes as long as filling a tenth of a segment, so one reading serves for a moment, and
 * for a small part of the room it found: other processes count on the same room. */
static bool cgroup_has_room(fb_store *s, uint64_t bytes)
{
    int64_t now_ms = fb_boottime_ms();
    if (bytes != 0 && now_ms - atomic_load(&s->cgroup_read_ms) < CGROUP_READING_MS) {
        uint64_t left = atomic_load(&s->cgroup_allowance);
        while (left >= bytes)
            if (atomic_compare_exchange_weak(&s->cgroup_allowance, &left, left - bytes))
                return true;
    }
    uint64_t room = fb_cgroup_room();
    bool has_room = room > bytes;
    atomic_store(&s->cgroup_allowance, has_room ? (room - bytes) / CGROUP_READING_SHARE : 0);
    atomic_store(&s->cgroup_read_ms, now_ms);
    return has_room;
}

bool fb_tier_has_room(fb_store *s, uint32_t tier, uint64_t bytes)
{
    struct statvfs fs;
    int directory = fb_tier_directory(s, tier);
    if (directory < 0 || fstatvfs(directory, &fs) != 0)
        return false;
    uint64_t total = (uint64_t)fs.f_blocks * fs.f_frsize, free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes < bytes + total / 10)
        return false;
    return s->super->tiers[tier].medium != FB_MEM || cgroup_has_room(s, bytes);
}
