#include "tiers.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "health.h"
#include "platform.h"

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

static mode_t directory_mode(mode_t file_mode)
{
    return file_mode == 0660 ? 02770 : 0700;
}

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

int fb_open_versioned(const char *path, mode_t mode, int64_t group_id, struct fb_error *error)
{
    char version[16];
    snprintf(version, sizeof version, "v%u", FB_FORMAT);
    int r = make_parents(path);
    if (r == 0)
        r = make_directory(AT_FDCWD, path, mode, group_id);
    int fd = r == 0 ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : r;
    if (fd < 0)
        return fb_fail(error, r == 0 ? -errno : r, "%s: cannot make or open the directory: %s", path,
                       strerror(r == 0 ? errno : -r));
    const char *refused = fb_refused_file_system(fd);
    if (refused != NULL) {
        close(fd);
        return fb_fail(error, -EOPNOTSUPP,
                       "%s: lies on %s, whose locks or maps are not shared safely; choose a local directory", path, refused);
    }
    r = make_directory(fd, version, mode, group_id);
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

static bool read_identity(int directory, struct tier_identity *out)
{
    int fd = fb_open_regular(directory, TIER_FILE, O_RDONLY, 0);
    if (fd < 0)
        return false;
    bool good = fb_pread_all(fd, out, sizeof *out, 0) == 0 && out->magic == FB_SEGMENT_MAGIC &&
                out->crc == fb_crc32c(0, out, offsetof(struct tier_identity, crc));
    close(fd);
    return good;
}

static int write_identity(fb_store *s, uint32_t tier, int directory)
{
    struct tier_identity identity = {
        .magic = FB_SEGMENT_MAGIC, .segment_bytes = s->super->tiers[tier].segment_bytes, .number = tier};
    memcpy(identity.store_id, s->super->store_id, sizeof identity.store_id);
    memcpy(identity.cache_path, s->config.path, sizeof identity.cache_path);
    identity.crc = fb_crc32c(0, &identity, offsetof(struct tier_identity, crc));
    int fd = fb_open_regular(directory, TIER_FILE, O_RDWR | O_CREAT | O_TRUNC, s->config.file_mode);
    if (fd < 0)
        return fd;
    int r = fb_pwrite_all(fd, &identity, sizeof identity, 0);
    if (r == 0)
        r = fsync(fd) == 0 ? 0 : -errno;
    close(fd);
    return r;
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

static int claim_tier(fb_store *s, uint32_t tier, int directory, struct fb_error *error)
{
    struct tier_identity identity;
    if (read_identity(directory, &identity)) {
        bool ours = memcmp(identity.store_id, s->super->store_id, sizeof identity.store_id) == 0;
        if (ours && identity.number == tier && identity.segment_bytes == s->super->tiers[tier].segment_bytes) {
            remove_surplus(directory, &s->super->tiers[tier]);
            return 0;
        }
        if (!ours && owner_still_there(&identity))
            return fb_fail(error, -EINVAL, "tier %s: belongs to the cache at %s; give each cache its own tier directories",
                           s->super->tiers[tier].path, identity.cache_path);
    }
    remove_segments(directory);
    return write_identity(s, tier, directory);
}

int fb_tiers_open(fb_store *s, bool create, struct fb_error *error)
{
    uint32_t usable = 0;
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++) {
        struct fb_error reason = {0};
        mode_t mode = directory_mode((mode_t)s->config.file_mode);
        int fd = fb_open_versioned(s->super->tiers[tier].path, mode, s->config.group_id, &reason);
        if (fd >= 0 && create && !s->read_only) {
            int r = claim_tier(s, tier, fd, &reason);
            if (r != 0) {
                close(fd);
                fd = r;
            }
        }
        if (fd == -EINVAL || fd == -EOPNOTSUPP)
            return fb_fail(error, fd, "%s", reason.message);
        s->tier_fds[tier] = fd;
        if (fd >= 0)
            usable++;
        else if (error->message[0] == 0)
            *error = reason;
    }
    return usable > 0 ? 0 : error->code != 0 ? error->code : -ENOENT;
}

void fb_tiers_close(fb_store *s)
{
    for (uint32_t tier = 0; tier < FB_TIERS_MAX; tier++)
        if (s->tier_fds[tier] >= 0)
            close(s->tier_fds[tier]);
}
