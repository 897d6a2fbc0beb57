#include "trust.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "geometry.h"
#include "open.h"
#include "platform.h"

#define IDENTITY_FILE "identity"
#define TIERS_FILE "tiers"

/* ---- identity ---- */

int fb_identity_read(fb_store *s, struct fb_identity *out)
{
    struct fb_identity identity;
    int fd = fb_open_regular(s->root_fd, IDENTITY_FILE, O_RDONLY, 0);
    if (fd < 0)
        return fd == -ELOOP || fd == -ENOTSUP ? -EBADMSG : fd;
    int r = fb_pread_all(fd, &identity, sizeof identity, 0);
    close(fd);
    if (r == 0 && identity.crc != fb_crc32c(0, &identity, offsetof(struct fb_identity, crc)))
        r = -EBADMSG;
    if (r == 0)
        *out = identity;
    return r;
}

/* Without an identity nothing says that this directory is ours: an index that does not look so either is
 * left to whom it belongs. */
static bool foreign_index(fb_store *s)
{
    uint64_t magic = 0;
    struct stat st;
    int fd = fb_open_regular(s->root_fd, "index", O_RDONLY, 0);
    if (fd < 0)
        return fd != -ENOENT;
    bool foreign = fstat(fd, &st) != 0 || st.st_size > 0;
    if (foreign && fb_pread_all(fd, &magic, sizeof magic, 0) == 0)
        foreign = magic != FB_INDEX_MAGIC;
    close(fd);
    return foreign;
}

static int write_identity(fb_store *s, struct fb_identity *identity)
{
    identity->crc = fb_crc32c(0, identity, offsetof(struct fb_identity, crc));
    int fd = fb_open_regular(s->root_fd, IDENTITY_FILE, O_RDWR | O_CREAT | O_TRUNC, s->config.file_mode);
    int r = fd < 0 ? fd : fb_pwrite_all(fd, identity, sizeof *identity, 0);
    if (r == 0 && fsync(fd) != 0)
        r = -errno;
    if (fd >= 0)
        close(fd);
    return r;
}

void fb_identity_mend(fb_store *s)
{
    struct fb_identity identity, found;
    int r = fb_identity_read(s, &found);
    if (r != -ENOENT && r != -EBADMSG)
        return;
    memcpy(identity.store_id, s->super->store_id, sizeof identity.store_id);
    memcpy(identity.secret, s->secret, sizeof identity.secret);
    (void)write_identity(s, &identity); /* at worst the next one begins anew */
}

int fb_identity_open(fb_store *s, struct fb_identity *out, struct fb_error *error)
{
    struct fb_identity identity;
    int r = fb_identity_read(s, out);
    if (r == 0)
        return 0;
    if (r != -ENOENT && r != -EBADMSG)
        return fb_fail(error, r, "%s: cannot read the cache's identity: %s", s->config.path, strerror(-r));
    if (r == -ENOENT && foreign_index(s))
        return fb_fail(
            error, -EPROTO,
            "%s/v%u: the file index there is not forebay's, and no identity says that the folder is; "
            "choose another cache directory or move that file away",
            s->config.path, FB_FORMAT);
    if (getrandom(&identity, offsetof(struct fb_identity, crc), 0) !=
        (ssize_t)offsetof(struct fb_identity, crc))
        return fb_fail(error, -EIO, "%s: no random numbers", s->config.path);
    r = write_identity(s, &identity);
    if (r != 0)
        return fb_fail(error, r, "%s: cannot write the cache's identity: %s", s->config.path, strerror(-r));
    *out = identity;
    return 0;
}

/* ---- superblock ---- */

static bool super_is_ours(const struct fb_index_super *super, const struct fb_identity *identity)
{
    return super->magic == FB_INDEX_MAGIC && super->format == FB_FORMAT && super->features == FB_FEATURES &&
           super->static_crc == fb_super_static_crc(super) &&
           memcmp(super->store_id, identity->store_id, sizeof super->store_id) == 0;
}

bool fb_super_read(fb_store *s, const struct fb_identity *identity, struct fb_index_super *out)
{
    struct fb_index_super *super = malloc(sizeof *super);
    bool good = super != NULL && fb_pread_all(s->index_fd, super, sizeof *super, 0) == 0 &&
                super_is_ours(super, identity);
    if (good)
        *out = *super;
    free(super);
    return good;
}

void fb_super_remember(fb_store *s, const struct fb_index_super *super)
{
    int fd = fb_open_regular(s->root_fd, TIERS_FILE, O_RDWR | O_CREAT, s->config.file_mode);
    if (fd < 0)
        return;
    /* Without it tiers must be given once more after the index was lost: no reason to fail here. */
    if (fb_pwrite_all(fd, super, offsetof(struct fb_index_super, boot_id), 0) == 0)
        (void)fsync(fd);
    close(fd);
}

bool fb_super_recall(fb_store *s, const struct fb_identity *identity, struct fb_index_super *out)
{
    struct fb_index_super *super = calloc(1, sizeof *super);
    int fd = super != NULL ? fb_open_regular(s->root_fd, TIERS_FILE, O_RDONLY, 0) : -1;
    bool good = fd >= 0 && fb_pread_all(fd, super, offsetof(struct fb_index_super, boot_id), 0) == 0 &&
                super_is_ours(super, identity);
    if (fd >= 0)
        close(fd);
    if (good)
        *out = *super;
    free(super);
    return good;
}

/* ---- trust ---- */

static uint64_t pages_offset(const struct fb_index_super *super)
{
    return fb_index_map_bytes(super) - ((uint64_t)super->page_count_max + 64) * FB_PAGE_BYTES;
}

bool fb_index_file_holds(fb_store *s, const struct fb_index_super *super, uint64_t page_count)
{
    struct stat st;
    return fstat(s->index_fd, &st) == 0 && page_count <= super->page_count_max &&
           (uint64_t)st.st_size >= pages_offset(super) + page_count * FB_PAGE_BYTES;
}

uint32_t fb_contents_crc(fb_store *s, uint64_t page_count)
{
    uint64_t table_bytes = (uint64_t)s->super->segment_count * sizeof(struct fb_segment);
    uint32_t crc = fb_crc32c(0, s->index + FB_INDEX_SUPER_BYTES, table_bytes);
    return fb_crc32c(crc, s->index + pages_offset(s->super), page_count * FB_PAGE_BYTES);
}

static bool live_goes_on(fb_store *s)
{
    if (fb_map_live(s, NULL) != 0)
        return false;
    if (fb_index_file_holds(s, s->super, atomic_load(&s->shared->page_count)))
        return true;
    munmap(s->live, s->live_map_bytes);
    close(s->live_fd);
    s->live = NULL;
    s->live_fd = -1;
    return false;
}

enum fb_trust fb_trust_judge(fb_store *s, const struct fb_index_super *super, const char *boot_id)
{
    if (super->dynamic_crc != fb_super_dynamic_crc(super) || fb_map_index(s, super, false, NULL) != 0)
        return FB_TRUST_NOTHING;
    bool same_boot = strncmp(super->boot_id, boot_id, sizeof super->boot_id) == 0;
    if (super->clean && fb_index_file_holds(s, super, super->page_count) &&
        fb_contents_crc(s, super->page_count) == super->contents_crc)
        return FB_TRUST_CLEAN;
    if (!super->clean && same_boot && live_goes_on(s))
        return FB_TRUST_LIVE;
    munmap(s->index, s->index_map_bytes);
    s->index = NULL;
    return FB_TRUST_NOTHING;
}
