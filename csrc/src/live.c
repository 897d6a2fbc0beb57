/* The files that all processes map: index and live. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "geometry.h"
#include "open.h"
#include "platform.h"
#include "rows.h"

#define GROW_SLACK (1u << 20)
#define HOLD_TRIES 10000
#define HOLD_STEP_US 1000

static int map_file(int fd, uint64_t bytes, bool read_only, void **out)
{
    int protection = read_only ? PROT_READ : PROT_READ | PROT_WRITE;
    void *map = mmap(NULL, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (map == MAP_FAILED)
        return -errno;
    *out = map;
    return 0;
}

int fb_map_index(fb_store *s, const struct fb_index_super *plan, bool reset, struct fb_error *error)
{
    uint64_t pages_at = fb_index_map_bytes(plan) - ((uint64_t)plan->page_count_max + 64) * FB_PAGE_BYTES;
    int r = 0;
    if (reset) {
        if (ftruncate(s->index_fd, 0) != 0)
            r = -errno;
        if (r == 0)
            r = fb_reserve_bytes(s->index_fd, 0, pages_at);
        if (r == 0)
            r = fb_pwrite_all(s->index_fd, plan, sizeof *plan, 0);
    }
    s->index_map_bytes = fb_index_map_bytes(plan);
    if (r == 0)
        r = map_file(s->index_fd, s->index_map_bytes, s->read_only, (void **)&s->index);
    if (r != 0)
        return fb_fail(error, r, "%s: cannot allocate or map the index: %s", s->config.path, strerror(-r));
    s->super = (struct fb_index_super *)s->index;
    return 0;
}

static bool live_is_this(const struct fb_live_super *live, const struct fb_index_super *super)
{
    return live->magic == FB_LIVE_MAGIC && live->format == FB_FORMAT && live->live_id == super->live_id &&
           live->total_bytes == fb_live_bytes(super) && atomic_load(&live->ready) == 1;
}

/* Whoever has a live file open holds this lock on it, so that nobody takes it for one left behind. One who
 * looks whether it was has the lock for a moment; for seconds, where it loses its processor then. Not to wait
 * so long is to take for lost what killed processes left in memory. */
static int hold_live(int fd)
{
    int r = fb_byte_lock(fd, F_RDLCK, 0);
    for (int tries = 0; r == -EAGAIN && tries < HOLD_TRIES; tries++) {
        usleep(HOLD_STEP_US);
        r = fb_byte_lock(fd, F_RDLCK, 0);
    }
    return r;
}

static bool is_in_use(int fd)
{
    return fb_byte_lock(fd, F_WRLCK, 0) != 0;
}

static uint64_t touched_bytes(const struct fb_live_super *live)
{
    return live->total_bytes + (uint64_t)atomic_load(&live->page_count) * FB_TOUCH_PAGE_BYTES;
}

int fb_map_live(fb_store *s, struct fb_error *error)
{
    struct stat st;
    int fd = fb_open_regular(AT_FDCWD, s->super->live_path, s->read_only ? O_RDONLY : O_RDWR, 0);
    if (fd < 0)
        return fb_fail(
            error, fd,
            "%s: its shared file %s cannot be opened (%s); share that mount with the processes that have "
            "the cache open",
            s->config.path, s->super->live_path, strerror(-fd));
    int r = hold_live(fd);
    if (r == 0)
        /* Whoever removed it as stale had it locked until then. */
        r = fstat(fd, &st) == 0 && st.st_nlink > 0 && (uint64_t)st.st_size >= fb_live_bytes(s->super)
                ? 0
                : -EBADMSG;
    s->live_map_bytes = fb_live_map_bytes(s->super);
    if (r == 0)
        r = map_file(fd, s->live_map_bytes, s->read_only, (void **)&s->live);
    if (r == 0 && (!live_is_this((struct fb_live_super *)s->live, s->super) ||
                   (uint64_t)st.st_size < touched_bytes((struct fb_live_super *)s->live))) {
        munmap(s->live, s->live_map_bytes);
        s->live = NULL;
        r = -EBADMSG;
    }
    if (r != 0) {
        close(fd);
        return fb_fail(
            error, r,
            "%s: the file %s is not the one that this cache has open; share that mount with the processes "
            "that have the cache open",
            s->config.path, s->super->live_path);
    }
    s->live_fd = fd;
    fb_live_lay_out(s);
    return 0;
}

static void hex_id(const uint8_t id[16], char out[33])
{
    for (int i = 0; i < 16; i++)
        snprintf(out + 2 * i, 3, "%02x", id[i]);
}

static bool has_room(const char *folder, uint64_t bytes)
{
    struct statvfs fs;
    if (statvfs(folder, &fs) != 0)
        return false;
    uint64_t free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    return free_bytes >= bytes + GROW_SLACK + bytes / 10;
}

/* Two containers may share /dev/shm, and have different caches under one path. */
static uint32_t mount_namespace(void)
{
    struct stat st;
    return stat("/proc/self/ns/mnt", &st) == 0 ? (uint32_t)st.st_ino : 0;
}

/* A live file is stale when nobody has it open, and the cache that it names is gone or has another one; which
 * only those can tell who mean the same by that name. Until the descriptor is closed nobody begins to use it.
 */
static bool is_stale(int fd, const char *path)
{
    char index_path[FB_PATH_MAX + 16];
    struct fb_live_super *live = malloc(sizeof *live);
    struct fb_index_super *super = malloc(sizeof *super);
    bool ours = live != NULL && super != NULL && !is_in_use(fd) &&
                fb_pread_all(fd, live, sizeof *live, 0) == 0 && live->magic == FB_LIVE_MAGIC &&
                live->format == FB_FORMAT && live->cache_path[0] == '/' && live->mount_namespace != 0 &&
                live->mount_namespace == mount_namespace();
    bool stale = false;
    if (ours) {
        snprintf(index_path, sizeof index_path, "%.*s/v%u/index", FB_PATH_MAX - 1, live->cache_path,
                 FB_FORMAT);
        int index_fd = fb_open_regular(AT_FDCWD, index_path, O_RDONLY, 0);
        stale = index_fd == -ENOENT || index_fd == -ENOTDIR ||
                (index_fd >= 0 && fb_pread_all(index_fd, super, sizeof *super, 0) == 0 &&
                 strncmp(super->live_path, path, sizeof super->live_path) != 0);
        if (index_fd >= 0)
            close(index_fd);
    }
    free(live);
    free(super);
    return stale;
}

/* What caches that were removed while processes had them open left behind. */
static void sweep_stale(const char *folder)
{
    char path[FB_PATH_MAX + 64];
    DIR *listing = opendir(folder);
    if (listing == NULL)
        return;
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        bool fits = strncmp(entry->d_name, "live-", 5) == 0 &&
                    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path;
        int fd = fits ? fb_open_regular(dirfd(listing), entry->d_name, O_RDWR, 0) : -1;
        if (fd >= 0 && is_stale(fd, path))
            unlinkat(dirfd(listing), entry->d_name, 0);
        if (fd >= 0)
            close(fd);
    }
    closedir(listing);
}

static int make_live_at(fb_store *s, const char *folder, bool only_tmpfs)
{
    char id[33], path[sizeof s->live_made];
    int directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -errno;
    sweep_stale(folder);
    bool good = (!only_tmpfs || fb_is_tmpfs(directory)) && fb_refused_file_system(directory) == NULL;
    close(directory);
    if (!good || !has_room(folder, fb_live_bytes(s->super)))
        return -ENOSPC;
    hex_id(s->super->store_id, id);
    if (snprintf(path, sizeof path, "%s/live-%s", folder, id) >= (int)sizeof path)
        return -ENAMETOOLONG;
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, s->config.file_mode);
    if (fd < 0)
        return -errno;
    int r = hold_live(fd);
    if (r == 0 && fchmod(fd, (mode_t)s->config.file_mode) != 0)
        r = -errno;
    if (r == 0 && s->config.group_id >= 0 && fchown(fd, (uid_t)-1, (gid_t)s->config.group_id) != 0)
        r = -errno;
    if (r == 0)
        r = fb_reserve_bytes(fd, 0, fb_live_bytes(s->super));
    s->live_map_bytes = fb_live_map_bytes(s->super);
    if (r == 0)
        r = map_file(fd, s->live_map_bytes, false, (void **)&s->live);
    if (r != 0) {
        unlink(path);
        close(fd);
        return r;
    }
    s->live_fd = fd;
    memcpy(s->live_made, path, sizeof path);
    return 0;
}

int fb_make_live(fb_store *s, struct fb_error *error)
{
    char folder[FB_PATH_MAX + 8];
    int r = -ENOSPC;
    for (uint32_t tier = 0; r != 0 && tier < s->super->tier_count; tier++) {
        snprintf(folder, sizeof folder, "%.*s/v%u", FB_PATH_MAX - 1, s->super->tiers[tier].path, FB_FORMAT);
        if (s->super->tiers[tier].medium == FB_MEM && s->tier_fds[tier] >= 0)
            r = make_live_at(s, folder, true);
    }
    if (r != 0)
        r = make_live_at(s, "/dev/shm", true);
    if (r != 0) {
        snprintf(folder, sizeof folder, "%.*s/v%u", FB_PATH_MAX - 1, s->config.path, FB_FORMAT);
        r = make_live_at(s, folder, false);
    }
    if (r != 0)
        return fb_fail(error, r, "%s: no room for its shared table of %llu bytes: %s", s->config.path,
                       (unsigned long long)fb_live_bytes(s->super), strerror(-r));
    struct fb_live_super *live = (struct fb_live_super *)s->live;
    if (getrandom(&live->live_id, sizeof live->live_id, 0) != sizeof live->live_id)
        return fb_fail(error, -EIO, "%s: no random numbers", s->config.path);
    live->magic = FB_LIVE_MAGIC;
    live->format = FB_FORMAT;
    live->mount_namespace = mount_namespace();
    memcpy(live->cache_path, s->config.path, sizeof live->cache_path);
    live->total_bytes = fb_live_bytes(s->super);
    fb_live_lay_out(s);
    return 0;
}

void fb_unlink_live(fb_store *s)
{
    unlink(s->super->live_path);
}
