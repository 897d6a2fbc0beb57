#include "open.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failpoint.h"
#include "geometry.h"
#include "grow.h"
#include "health.h"
#include "index.h"
#include "maintain.h"
#include "platform.h"
#include "read.h"
#include "rebuild.h"
#include "rows.h"
#include "segfile.h"
#include "tiers.h"

#define OPEN_TIMEOUT_MS 30000
#define OPEN_STEP_US 5000
#define GROUP_DIRECTORY_MODE 02770
#define HELD_SHARE 20u /* 5 % */
#define HELD_SEGMENTS_AT_LEAST 4u
#define SEQUENCES_A_MS_BITS 20u

struct identity {
    uint8_t store_id[16];
    uint8_t secret[16];
    uint32_t crc;
};

/* Which cache this is, and the secret of its keys. Outlives the index, so that a rebuilt one finds its
 * blocks under the same keys. */
static int open_identity(fb_store *s, struct identity *out, struct fb_error *error)
{
    struct identity identity;
    int fd = fb_open_regular(s->root_fd, "identity", O_RDONLY, 0);
    if (fd >= 0) {
        int r = fb_pread_all(fd, &identity, sizeof identity, 0);
        close(fd);
        if (r == 0 && identity.crc == fb_crc32c(0, &identity, offsetof(struct identity, crc))) {
            *out = identity;
            return 0;
        }
    }
    if (s->read_only)
        return fb_fail(error, -EPROTO, "%s: no cache lies here", s->config.path);
    if (getrandom(&identity, offsetof(struct identity, crc), 0) != (ssize_t)offsetof(struct identity, crc))
        return fb_fail(error, -EIO, "%s: no random numbers", s->config.path);
    identity.crc = fb_crc32c(0, &identity, offsetof(struct identity, crc));
    fd = fb_open_regular(s->root_fd, "identity", O_RDWR | O_CREAT | O_TRUNC, s->config.file_mode);
    int r = fd < 0 ? fd : fb_pwrite_all(fd, &identity, sizeof identity, 0);
    if (r == 0 && fsync(fd) != 0)
        r = -errno;
    if (fd >= 0)
        close(fd);
    if (r != 0)
        return fb_fail(error, r, "%s: cannot write the cache's identity: %s", s->config.path, strerror(-r));
    *out = identity;
    return 0;
}

static bool read_super(fb_store *s, const struct identity *identity, struct fb_index_super *out)
{
    struct fb_index_super *super = malloc(sizeof *super);
    struct stat st;
    bool good = super != NULL && fstat(s->index_fd, &st) == 0 && fb_pread_all(s->index_fd, super, sizeof *super, 0) == 0 &&
                super->magic == FB_INDEX_MAGIC && super->format == FB_FORMAT &&
                super->static_crc == fb_super_static_crc(super) &&
                memcmp(super->store_id, identity->store_id, sizeof super->store_id) == 0;
    if (good)
        *out = *super;
    free(super);
    return good;
}

/* ---- alone ---- */

enum trust { TRUST_LIVE, TRUST_CLEAN, TRUST_NOTHING };

static enum trust judge(fb_store *s, const struct fb_index_super *super, const char *boot_id)
{
    struct stat st;
    uint64_t pages = super->page_count;
    if (super->dynamic_crc != fb_super_dynamic_crc(super))
        return TRUST_NOTHING;
    if (fb_map_index(s, super, false, NULL) != 0)
        return TRUST_NOTHING;
    bool sized = fstat(s->index_fd, &st) == 0;
    if (super->clean && sized && (uint64_t)st.st_size >= s->index_map_bytes -
                                                          ((uint64_t)super->page_count_max + 64 - pages) * FB_PAGE_BYTES)
        return TRUST_CLEAN;
    if (!super->clean && strncmp(super->boot_id, boot_id, sizeof super->boot_id) == 0 && fb_map_live(s, NULL) == 0) {
        pages = atomic_load(&s->shared->page_count);
        if (sized && pages <= super->page_count_max &&
            (uint64_t)st.st_size >=
                s->index_map_bytes - ((uint64_t)super->page_count_max + 64 - pages) * FB_PAGE_BYTES)
            return TRUST_LIVE;
        munmap(s->live, s->live_map_bytes);
        close(s->live_fd);
        s->live = NULL;
        s->live_fd = -1;
    }
    munmap(s->index, s->index_map_bytes);
    s->index = NULL;
    return TRUST_NOTHING;
}

static int plan_super(fb_store *s, const struct identity *identity, const struct fb_index_super *before, bool known,
                      struct fb_index_super *plan, struct fb_error *error)
{
    if (s->config.tier_count == 0 && !known)
        return fb_fail(error, -EINVAL, "%s: no tiers given and none remembered", s->config.path);
    if (s->config.tier_count == 0)
        fb_geometry_recall(before, &s->config);
    memset(plan, 0, sizeof *plan);
    memcpy(plan->store_id, identity->store_id, sizeof plan->store_id);
    return fb_geometry_plan(&s->config, plan, error);
}

/* Until here the superblock is as it was: who is killed before leaves what the next one can trust. */
static void publish_super(fb_store *s, const char *boot_id)
{
    if (s->live_made[0] != 0) {
        memcpy(s->super->live_path, s->live_made, sizeof s->super->live_path);
        s->super->live_id = s->shared->live_id;
    }
    memset(s->super->boot_id, 0, sizeof s->super->boot_id);
    memcpy(s->super->boot_id, boot_id, 36);
    s->super->clean = 0;
    s->super->verify_generation = atomic_load(&s->shared->verify_generation);
    s->super->dynamic_crc = fb_super_dynamic_crc(s->super);
    msync(s->index, FB_INDEX_SUPER_BYTES, MS_SYNC);
    atomic_store(&s->shared->ready, 1);
}

static void fresh_tiers(fb_store *s)
{
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++) {
        struct fb_tier_live *live = &s->shared->tiers[tier];
        atomic_store(&live->effective_bytes, s->super->tiers[tier].quota_bytes);
        atomic_store(&live->shrunk, 0);
        atomic_store(&live->faults, 0);
        atomic_store(&live->failed, s->tier_fds[tier] < 0);
        atomic_store(&live->pinned_hint, UINT64_MAX / 2); /* unknown: the first pin counts */
    }
}

static int start_over(fb_store *s, struct fb_index_super *plan, const struct fb_index_super *before, bool known,
                      struct fb_error *error)
{
    if (known && before->dynamic_crc == fb_super_dynamic_crc(before)) {
        memcpy(plan->counters, before->counters, sizeof plan->counters);
        plan->clock_base_ms = before->clock_base_ms;
    }
    int r = fb_map_index(s, plan, true, error);
    if (r == 0)
        r = fb_tiers_open(s, true, error);
    if (r == 0)
        r = fb_make_live(s, error);
    if (r != 0)
        return r;
    memcpy(s->shared->counters, s->super->counters, sizeof s->shared->counters);
    atomic_store(&s->shared->verify_generation, 1);
    /* Above all that a segment can hold from before: not even a second rebuild takes the older for the newer. */
    atomic_store(&s->shared->sequence, (uint64_t)fb_realtime_ms() << SEQUENCES_A_MS_BITS);
    atomic_store(&s->shared->clock_base_ms, fb_realtime_ms() - fb_boottime_ms());
    fresh_tiers(s);
    r = fb_attach_process(s, error);
    if (r == 0 && fb_index_format(s) != 0)
        r = fb_fail(error, -ENOSPC, "%s: no room for the index", s->config.path);
    if (r == 0)
        fb_rebuild_begin(s);
    return r;
}

static int keep_going(fb_store *s, enum trust trust, struct fb_error *error)
{
    int r = fb_tiers_open(s, true, error);
    if (r == 0 && trust == TRUST_CLEAN)
        r = fb_make_live(s, error);
    if (r == 0)
        r = fb_attach_process(s, error);
    if (r != 0)
        return r;
    if (trust == TRUST_CLEAN) {
        fb_load_clean(s);
        fresh_tiers(s);
        r = fb_grow_touches(s, s->super->page_count) == 0
                ? fb_index_adopt(s, s->super->page_count)
                : fb_fail(error, -ENOSPC, "%s: no room for its shared table", s->config.path);
    } else {
        fb_recover_in_place(s);
        fresh_tiers(s);
    }
    if (r == 0) {
        uint32_t generation = atomic_load(&s->shared->verify_generation) % 255 + 1;
        atomic_store(&s->shared->verify_generation, generation);
        if (generation == 1)
            fb_index_forget_verified(s);
        fb_drop_lost_segments(s);
    }
    return r;
}

/* What was attached before a failure, so that the next attempt begins anew. */
static void detach(fb_store *s)
{
    free(s->maps);
    free(s->held);
    free(s->segment_tier);
    s->maps = NULL;
    s->held = NULL;
    s->segment_tier = NULL;
    if (s->rows_fd >= 0)
        close(s->rows_fd);
    s->rows_fd = -1;
    s->has_row = false;
    if (s->live != NULL)
        munmap(s->live, s->live_map_bytes);
    if (s->live_fd >= 0)
        close(s->live_fd);
    s->live = NULL;
    s->live_fd = -1;
    s->live_made[0] = 0;
    if (s->index != NULL)
        munmap(s->index, s->index_map_bytes);
    s->index = NULL;
    fb_tiers_close(s);
    for (uint32_t tier = 0; tier < FB_TIERS_MAX; tier++)
        s->tier_fds[tier] = -1;
}

static int open_alone_with(fb_store *s, const struct identity *identity, struct fb_index_super *before,
                           struct fb_index_super *plan, struct fb_error *error)
{
    char boot_id[40];
    int r = fb_boot_id(boot_id);
    if (r != 0)
        return fb_fail(error, r, "%s: cannot read the kernel's boot id", s->config.path);
    bool known = read_super(s, identity, before);
    struct fb_error mismatch;
    bool same = known && (s->config.tier_count == 0 || fb_geometry_compare(before, &s->config, &mismatch) == 0);
    if (known && !same && !s->config.reshape)
        return fb_fail(error, -EINVAL, "%s", mismatch.message);
    if (same)
        fb_geometry_recall(before, &s->config);
    enum trust trust = same ? judge(s, before, boot_id) : TRUST_NOTHING;
    FB_POINT("open.judged");
    if (trust != TRUST_NOTHING) {
        r = keep_going(s, trust, error);
        if (r == -EBADMSG) {
            detach(s);
            trust = TRUST_NOTHING;
        }
    }
    if (trust == TRUST_NOTHING) {
        r = plan_super(s, identity, before, known, plan, error);
        if (r == 0)
            r = start_over(s, plan, before, known, error);
    }
    if (r == 0)
        publish_super(s, boot_id);
    return r;
}

int fb_open_alone(fb_store *s, struct fb_error *error)
{
    struct identity identity;
    struct fb_index_super *supers = calloc(2, sizeof *supers);
    if (supers == NULL)
        return fb_fail(error, -ENOMEM, "%s: out of memory", s->config.path);
    int r = open_identity(s, &identity, error);
    if (r == 0) {
        memcpy(s->secret, identity.secret, sizeof s->secret);
        s->index_fd = fb_open_regular(s->root_fd, "index", O_RDWR | O_CREAT, s->config.file_mode);
        r = s->index_fd >= 0 ? 0
                             : fb_fail(error, s->index_fd, "%s: cannot open the index: %s", s->config.path,
                                       strerror(-s->index_fd));
    }
    if (r == 0)
        r = open_alone_with(s, &identity, &supers[0], &supers[1], error);
    free(supers);
    return r;
}

/* ---- joined ---- */

int fb_open_joined(fb_store *s, struct fb_error *error)
{
    struct identity identity;
    char boot_id[40];
    struct fb_index_super super;
    if (open_identity(s, &identity, error) != 0 || fb_boot_id(boot_id) != 0)
        return -EAGAIN;
    memcpy(s->secret, identity.secret, sizeof s->secret);
    s->index_fd = fb_open_regular(s->root_fd, "index", s->read_only ? O_RDONLY : O_RDWR, 0);
    if (s->index_fd < 0 || !read_super(s, &identity, &super))
        return -EAGAIN;
    if (s->config.reshape)
        return fb_fail(error, -EBUSY, "%s: tiers cannot change while others have the cache open", s->config.path);
    if (s->config.tier_count != 0) {
        int r = fb_geometry_compare(&super, &s->config, error);
        if (r != 0)
            return r;
    }
    fb_geometry_recall(&super, &s->config);
    if (super.boot_id[0] != 0 && strncmp(super.boot_id, boot_id, sizeof super.boot_id) != 0)
        return fb_fail(error, -EBUSY, "%s: in use by another kernel; a cache directory belongs to one host at a time",
                       s->config.path);
    if (s->read_only && super.clean)
        return fb_fail(error, -ENODATA, "%s: nobody has it open, and opening it anew takes the right to write",
                       s->config.path);
    if (super.boot_id[0] == 0 || super.clean)
        return -EAGAIN;
    int r = fb_map_index(s, &super, false, error);
    if (r == 0)
        r = fb_map_live(s, error);
    if (r == 0)
        r = fb_tiers_open(s, false, error);
    for (uint32_t tier = 0; r == 0 && tier < s->super->tier_count; tier++)
        if (s->tier_fds[tier] < 0 && !fb_tier_failed(s, tier))
            r = fb_fail(error, s->tier_fds[tier], "%s: its tier directory %s cannot be opened here; share that mount",
                        s->config.path, s->super->tiers[tier].path);
    return r == 0 ? fb_attach_process(s, error) : r;
}

/* ---- both ---- */

static void number_tiers(fb_store *s)
{
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++) {
        struct fb_tier_saved *t = &s->super->tiers[tier];
        memset(s->segment_tier + t->segment_base, (int)tier, t->segment_count);
        memset(s->segment_tier + t->whole_base, (int)tier, t->whole_count);
    }
}

static uint64_t default_held_bytes(fb_store *s)
{
    uint64_t quota = 0, segment = 0;
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++)
        if (s->super->tiers[tier].medium == FB_MEM) {
            quota += s->super->tiers[tier].quota_bytes;
            if (s->super->tiers[tier].segment_bytes > segment)
                segment = s->super->tiers[tier].segment_bytes;
        }
    uint64_t share = quota / HELD_SHARE;
    return share > HELD_SEGMENTS_AT_LEAST * segment ? share : HELD_SEGMENTS_AT_LEAST * segment;
}

int fb_attach_process(fb_store *s, struct fb_error *error)
{
    s->maps = calloc(s->segment_count, sizeof *s->maps);
    s->held = calloc(s->segment_count, sizeof *s->held);
    s->segment_tier = calloc(s->segment_count, 1);
    if (s->maps == NULL || s->held == NULL || s->segment_tier == NULL)
        return fb_fail(error, -ENOMEM, "%s: out of memory", s->config.path);
    number_tiers(s);
    for (uint32_t i = 0; i < s->segment_count; i++)
        s->maps[i].descriptor = -1;
    if (s->config.max_held_bytes == 0)
        s->config.max_held_bytes = default_held_bytes(s);
    s->counters = s->read_only ? s->private_counters : s->rows[0].counters;
    if (s->read_only)
        return 0;
    int r = fb_row_claim(s, &s->rows_fd, &s->row);
    if (r != 0 && r != -EAGAIN)
        return fb_fail(error, r, "%s: cannot open rows.lock: %s", s->config.path, strerror(-r));
    s->has_row = r == 0;
    if (s->has_row) {
        s->me = fb_row_word(s, s->row);
        s->row_leases = s->leases + (uint64_t)s->row * s->segment_count;
        s->counters = s->rows[s->row].counters;
        fb_row_describe(s, s->row);
    }
    return 0;
}

/* Alone if we can, with the others if we must. */
static int take_open_lock(fb_store *s, bool *alone)
{
    if (!s->read_only && fb_byte_lock(s->open_fd, F_WRLCK, 0) == 0) {
        *alone = true;
        return 0;
    }
    *alone = false;
    return fb_byte_lock(s->open_fd, F_RDLCK, 0);
}

static int open_locked(fb_store *s, struct fb_error *error)
{
    int64_t limit = fb_boottime_ms() + OPEN_TIMEOUT_MS;
    for (;;) {
        bool alone;
        int r = take_open_lock(s, &alone);
        if (r == 0)
            r = alone ? fb_open_alone(s, error) : fb_open_joined(s, error);
        if (r == 0 && alone)
            r = fb_byte_lock(s->open_fd, F_RDLCK, 0); /* turns the lock at once, nobody comes between */
        if (r != -EAGAIN)
            return r;
        detach(s);
        if (s->index_fd >= 0)
            close(s->index_fd);
        s->index_fd = -1;
        fb_byte_lock(s->open_fd, F_UNLCK, 0);
        if (fb_boottime_ms() > limit)
            return fb_fail(error, -ETIMEDOUT, "%s: another process holds it in recovery for too long", s->config.path);
        usleep(OPEN_STEP_US);
    }
}

/* A cache made for a group stays one, whoever opens it. */
static int follow_group(fb_store *s, struct fb_error *error)
{
    struct stat st;
    if (fstat(s->root_fd, &st) != 0)
        return fb_fail(error, -errno, "%s: %s", s->config.path, strerror(errno));
    if (s->config.group_id < 0 && (st.st_mode & 07777) == GROUP_DIRECTORY_MODE) {
        s->config.file_mode = 0660;
        s->config.group_id = st.st_gid;
    }
    return 0;
}

static int open_lock_files(fb_store *s, struct fb_error *error)
{
    int flags = s->read_only ? O_RDONLY : O_RDWR | O_CREAT;
    mode_t mode = (mode_t)s->config.file_mode;
    s->open_fd = fb_open_regular(s->root_fd, "open.lock", flags, mode);
    s->probe_fd = fb_open_regular(s->root_fd, "rows.lock", flags, mode);
    if (s->open_fd >= 0 && s->probe_fd >= 0)
        return 0;
    int r = s->open_fd < 0 ? s->open_fd : s->probe_fd;
    return fb_fail(error, r, "%s: cannot open its lock files: %s", s->config.path, strerror(-r));
}

static void free_store(fb_store *s)
{
    if (s->maps != NULL)
        fb_maps_close(s);
    fb_pool_close(s);
    detach(s);
    int fds[] = {s->root_fd, s->open_fd, s->probe_fd, s->index_fd, s->orphan_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&s->maps_lock);
    pthread_mutex_destroy(&s->pool_lock);
    pthread_mutex_destroy(&s->maintainer_lock);
    free(s);
}

static fb_store *new_store(const struct fb_config *config)
{
    fb_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->config = *config;
    s->read_only = config->read_only;
    s->root_fd = s->open_fd = s->rows_fd = s->probe_fd = s->index_fd = s->live_fd = s->maintainer_fd = -1;
    s->orphan_fd = s->fork_rows_fd = s->fork_open_fd = -1;
    for (uint32_t tier = 0; tier < FB_TIERS_MAX; tier++)
        s->tier_fds[tier] = -1;
    pthread_mutex_init(&s->maps_lock, NULL);
    pthread_mutex_init(&s->pool_lock, NULL);
    pthread_mutex_init(&s->maintainer_lock, NULL);
    return s;
}

int fb_open(const struct fb_config *config, fb_store **out, struct fb_error *error)
{
    *error = (struct fb_error){0};
    fb_failpoint_load();
    fb_store *s = new_store(config);
    if (s == NULL)
        return fb_fail(error, -ENOMEM, "%s: out of memory", config->path);
    mode_t mode = config->file_mode == 0660 ? GROUP_DIRECTORY_MODE : 0700;
    s->root_fd = fb_open_versioned(config->path, mode, config->group_id, error);
    int r = s->root_fd < 0 ? s->root_fd : 0;
    if (r == 0)
        r = follow_group(s, error);
    if (r == 0)
        r = open_lock_files(s, error);
    if (r == 0)
        r = open_locked(s, error);
    if (r != 0) {
        free_store(s);
        return r;
    }
    fb_fork_register(s);
    *out = s;
    return 0;
}

void fb_close(fb_store *s)
{
    fb_fork_unregister(s);
    if (s->has_row) {
        fb_maintainer_stop(s);
        if (fb_byte_lock(s->open_fd, F_WRLCK, 0) == 0)
            fb_save_clean(s);
    }
    free_store(s);
}

void fb_config_read(fb_store *s, struct fb_config *out)
{
    *out = s->config;
}

void fb_key_for(fb_store *s, const void *key, size_t length_bytes, struct fb_key *out)
{
    fb_key_of(s->secret, key, length_bytes, out);
}
