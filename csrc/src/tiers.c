#include "tiers.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "health.h"
#include "platform.h"
#include "rows.h"

#define TIER_FILE "tier"

/* Who a tier directory belongs to. */
struct tier_identity {
    uint64_t magic;
    uint8_t store_id[16];
    uint64_t segment_bytes;
    uint32_t number, reserved;
    char cache_path[FB_PATH_MAX];
    uint32_t crc, reserved2;
};

static int make_directory(int at, const char *path, mode_t mode, int64_t group_id)
{
    if (mkdirat(at, path, mode & 0777) != 0)
        return errno == EEXIST ? 0 : -errno;
    if (group_id >= 0 && fchownat(at, path, (uid_t)-1, (gid_t)group_id, 0) != 0)
        return -errno;
    /* mkdir cuts the mode by the umask and drops the set-group-id bit. */
    return fchmodat(at, path, mode, 0) == 0 ? 0 : -errno;
}

static int make_parents(const char *path)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", path);
    for (char *slash = strchr(copy + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            return -errno;
        *slash = '/';
    }
    return 0;
}

int fb_open_versioned(const fb_store *s, const char *path, bool make, struct fb_error *error)
{
    char version[16];
    mode_t mode = s->config.file_mode == 0660 ? FB_GROUP_DIRECTORY_MODE : FB_OWN_DIRECTORY_MODE;
    snprintf(version, sizeof version, "v%u", FB_FORMAT);
    int r = make ? make_parents(path) : 0;
    if (r == 0 && make)
        r = make_directory(AT_FDCWD, path, mode, s->config.group_id);
    int fd = r == 0 ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : r;
    if (fd < 0)
        return fb_fail(error, r == 0 ? -errno : r, "%s: cannot make or open the directory: %s", path,
                       strerror(r == 0 ? errno : -r));
    const char *refused = fb_refused_file_system(fd);
    if (refused != NULL) {
        close(fd);
        return fb_fail(error, -EOPNOTSUPP,
                       "%s: lies on %s, whose locks or maps are not shared safely; choose a local directory",
                       path, refused);
    }
    r = make ? make_directory(fd, version, mode, s->config.group_id) : 0;
    int inner = r == 0 ? openat(fd, version, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (inner < 0)
        r = fb_fail(error, r == 0 ? -errno : r, "%s/%s: cannot make or open the directory: %s", path, version,
                    strerror(r == 0 ? errno : -r));
    close(fd);
    return inner < 0 ? r : inner;
}

static void remove_segments(int directory)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    if (listing == NULL)
        return;
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing))
        if (strncmp(entry->d_name, "seg-", 4) == 0 || strncmp(entry->d_name, "whole-", 6) == 0 ||
            strncmp(entry->d_name, "live-", 5) == 0)
            unlinkat(directory, entry->d_name, 0);
    closedir(listing);
}

/* Files of numbers that the tier no longer has, after its quota was cut. */
static void remove_surplus(int directory, const struct fb_tier_saved *tier)
{
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = fd >= 0 ? fdopendir(fd) : NULL;
    if (listing == NULL)
        return;
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        uint32_t number;
        if ((sscanf(entry->d_name, "seg-%6u", &number) == 1 && number >= tier->segment_count) ||
            (sscanf(entry->d_name, "whole-%6u", &number) == 1 && number >= tier->whole_count))
            unlinkat(directory, entry->d_name, 0);
    }
    closedir(listing);
}

/* 0, -EBADMSG (empty or damaged), or why it cannot be read. */
static int read_identity(int fd, struct tier_identity *out)
{
    struct tier_identity identity;
    int r = fb_pread_all(fd, &identity, sizeof identity, 0);
    if (r == 0 && (identity.magic != FB_SEGMENT_MAGIC ||
                   identity.crc != fb_crc32c(0, &identity, offsetof(struct tier_identity, crc))))
        r = -EBADMSG;
    if (r == 0)
        *out = identity;
    return r;
}

static int write_identity(fb_store *s, uint32_t tier, int fd)
{
    struct tier_identity identity = {
        .magic = FB_SEGMENT_MAGIC, .segment_bytes = s->super->tiers[tier].segment_bytes, .number = tier};
    memcpy(identity.store_id, s->super->store_id, sizeof identity.store_id);
    memcpy(identity.cache_path, s->config.path, sizeof identity.cache_path);
    identity.crc = fb_crc32c(0, &identity, offsetof(struct tier_identity, crc));
    if (ftruncate(fd, 0) != 0)
        return -errno;
    int r = fb_pwrite_all(fd, &identity, sizeof identity, 0);
    if (r == 0)
        r = fsync(fd) == 0 ? 0 : -errno;
    return r;
}

static bool is_of(fb_store *s, uint32_t tier, const struct tier_identity *identity)
{
    return memcmp(identity->store_id, s->super->store_id, sizeof identity->store_id) == 0 &&
           identity->number == tier && identity->segment_bytes == s->super->tiers[tier].segment_bytes;
}

/* The cache directory that claims this tier still does. */
static bool owner_still_there(const struct tier_identity *identity)
{
    char path[FB_PATH_MAX + 32];
    uint8_t id[16];
    snprintf(path, sizeof path, "%.*s/v%u/identity", FB_PATH_MAX - 1, identity->cache_path, FB_FORMAT);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    bool same = fb_pread_all(fd, id, sizeof id, 0) == 0 && memcmp(id, identity->store_id, sizeof id) == 0;
    close(fd);
    return same;
}

/* A copy of a cache directory has the same identity; two stores in one tier would overwrite each other. A
 * directory that was moved, or is mounted elsewhere, is one and the same. */
static bool is_a_copy(fb_store *s, const struct tier_identity *identity)
{
    char path[FB_PATH_MAX + 32];
    struct stat there, here;
    if (strncmp(identity->cache_path, s->config.path, sizeof identity->cache_path) == 0 ||
        !owner_still_there(identity))
        return false;
    snprintf(path, sizeof path, "%.*s/v%u/identity", FB_PATH_MAX - 1, identity->cache_path, FB_FORMAT);
    return stat(path, &there) == 0 && fstatat(s->root_fd, "identity", &here, 0) == 0 &&
           (there.st_dev != here.st_dev || there.st_ino != here.st_ino);
}

/* Ours from now on. Whoever uses a tier holds a shared lock on its identity, so that one whose cache
 * directory is gone, and with it the claim, is not robbed while it is in use. */
static int take_over(fb_store *s, uint32_t tier, int directory, int fd, const struct tier_identity *found,
                     struct fb_error *error)
{
    const char *path = s->super->tiers[tier].path;
    bool others = found != NULL && memcmp(found->store_id, s->super->store_id, sizeof found->store_id) != 0;
    if (others && owner_still_there(found))
        return fb_fail(error, -EINVAL,
                       "tier %s: belongs to the cache at %s; give each cache its own tier directories", path,
                       found->cache_path);
    if (fb_byte_lock(fd, F_WRLCK, 0) != 0)
        return fb_fail(error, -EBUSY, "tier %s: in use by a process that has another cache open, at %s", path,
                       found != NULL ? found->cache_path
                                     : "a place that its damaged file tier does not tell");
    remove_segments(directory);
    int r = write_identity(s, tier, fd);
    return r == 0 ? 0 : fb_fail(error, r, "tier %s: cannot be written: %s", path, strerror(-r));
}

static int claim(fb_store *s, uint32_t tier, int directory, int *lock_fd, struct fb_error *error)
{
    struct tier_identity identity;
    int fd = fb_open_regular(directory, TIER_FILE, O_RDWR | O_CREAT, (mode_t)s->config.file_mode);
    if (fd < 0)
        return fb_fail(error, fd, "tier %s: cannot open its file tier: %s", s->super->tiers[tier].path,
                       strerror(-fd));
    int r = read_identity(fd, &identity);
    bool known = r == 0;
    if (known && is_of(s, tier, &identity) && is_a_copy(s, &identity))
        r = fb_fail(error, -EINVAL,
                    "tier %s: belongs to the cache at %s, of which %s is a copy; remove the copy",
                    s->super->tiers[tier].path, identity.cache_path, s->config.path);
    else if (known && is_of(s, tier, &identity))
        remove_surplus(directory, &s->super->tiers[tier]);
    else if (known || r == -EBADMSG)
        r = take_over(s, tier, directory, fd, known ? &identity : NULL, error);
    if (r == 0)
        r = fb_byte_lock(fd, F_RDLCK, 0);
    if (r == 0)
        *lock_fd = fd;
    else
        close(fd);
    return r;
}

static int join(fb_store *s, uint32_t tier, int directory, int *lock_fd, struct fb_error *error)
{
    struct tier_identity identity;
    int fd = fb_open_regular(directory, TIER_FILE, O_RDONLY, 0);
    int r = fd < 0 ? fd : read_identity(fd, &identity);
    if (r == 0)
        r = is_of(s, tier, &identity) ? fb_byte_lock(fd, F_RDLCK, 0) : -ENOENT;
    if (r == 0)
        *lock_fd = fd;
    else if (fd >= 0)
        close(fd);
    return r == 0 ? 0
                  : fb_fail(error, r, "%s: the directory at tier %s is not the one that the cache has open",
                            s->config.path, s->super->tiers[tier].path);
}

int fb_tier_open(fb_store *s, uint32_t tier, enum fb_tier_opening how, int *lock_fd, struct fb_error *error)
{
    int fd = -ENOENT;
    /* Only a store that is opened anew makes the directory itself; one that is gone may be an unmounted disk.
     */
    if (how != FB_TIER_CLAIM || faccessat(AT_FDCWD, s->super->tiers[tier].path, F_OK, 0) == 0)
        fd = fb_open_versioned(s, s->super->tiers[tier].path, how != FB_TIER_JOIN, error);
    if (fd < 0)
        return fd;
    int r = how == FB_TIER_JOIN ? join(s, tier, fd, lock_fd, error) : claim(s, tier, fd, lock_fd, error);
    if (r != 0)
        close(fd);
    return r != 0 ? r : fd;
}

int fb_tiers_open(fb_store *s, bool create, struct fb_error *error)
{
    uint32_t usable = 0;
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++) {
        struct fb_error reason = {0};
        int lock_fd = -1, fd = fb_tier_open(s, tier, create ? FB_TIER_MAKE : FB_TIER_JOIN, &lock_fd, &reason);
        if (fd == -EINVAL || fd == -EOPNOTSUPP || fd == -EBUSY)
            return fb_fail(error, fd, "%s", reason.message);
        s->tier_fds[tier] = fd;
        s->tier_locks[tier] = lock_fd;
        if (!create)
            s->tier_changes[tier] = atomic_load(&s->shared->tiers[tier].directory_changes);
        if (fd >= 0)
            usable++;
        else if (error->message[0] == 0)
            *error = reason;
    }
    return usable > 0 || !create ? 0 : error->code != 0 ? error->code : -ENOENT;
}

void fb_tiers_close(fb_store *s)
{
    for (uint32_t tier = 0; tier < FB_TIERS_MAX; tier++) {
        if (s->tier_fds[tier] >= 0)
            close(s->tier_fds[tier]);
        if (s->tier_locks[tier] >= 0)
            close(s->tier_locks[tier]);
        s->tier_fds[tier] = s->tier_locks[tier] = -1;
    }
}
