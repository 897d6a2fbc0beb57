#include "open.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "account.h"
#include "clock.h"
#include "failpoint.h"
#include "geometry.h"
#include "grow.h"
#include "health.h"
#include "index.h"
#include "maintain.h"
#include "pin.h"
#include "platform.h"
#include "quota.h"
#include "read.h"
#include "rebuild.h"
#include "rows.h"
#include "segfile.h"
#include "tiers.h"
#include "trust.h"

#define OPEN_TIMEOUT_MS 30000
#define OPEN_STEP_US 5000
#define SETTLE_MS 500
#define HELD_SHARE 20u /* 5 % */
#define HELD_SEGMENTS_AT_LEAST 4u
#define SEQUENCES_A_MS_BITS 20u

/* ---- alone ---- */

static int plan_super(fb_store *s, const struct fb_identity *identity, const struct fb_index_super *before,
                      bool known, struct fb_index_super *plan, struct fb_error *error)
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
    if (atomic_load(&s->shared->now_s) == 0)
        atomic_store(&s->shared->now_s, fb_now_s(s));
    atomic_store(&s->shared->ready, 1);
}

static void fresh_tiers(fb_store *s)
{
    fb_tiers_note(s);
    for (uint32_t tier = 0; tier < s->super->tier_count; tier++) {
        struct fb_tier_live *live = &s->shared->tiers[tier];
        atomic_store(&live->effective_bytes, s->super->tiers[tier].quota_bytes);
        atomic_store(&live->shrunk, 0);
        atomic_store(&live->faults, 0);
        atomic_store(&live->failed, s->tier_fds[tier] < 0);
        fb_pin_forget(s, tier);
    }
}

static int start_over(fb_store *s, struct fb_index_super *plan, const struct fb_index_super *before,
                      bool known, struct fb_error *error)
{
    if (known && before->dynamic_crc == fb_super_dynamic_crc(before)) {
        memcpy(plan->accounts, before->accounts, sizeof plan->accounts);
        plan->clock_base_ms = before->clock_base_ms;
    }
    int r = fb_map_index(s, plan, true, error);
    if (r == 0)
        r = fb_tiers_open(s, true, error);
    if (r == 0)
        r = fb_make_live(s, error);
    if (r != 0)
        return r;
    fb_super_remember(s, plan);
    fb_accounts_load(s);
    atomic_store(&s->shared->verify_generation, 1);
    /* Above all that a segment can hold from before: not even a second rebuild takes the older for the newer.
     */
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

static int keep_going(fb_store *s, enum fb_trust trust, struct fb_error *error)
{
    int r = fb_tiers_open(s, true, error);
    if (r == 0 && trust == FB_TRUST_CLEAN)
        r = fb_make_live(s, error);
    if (r == 0)
        r = fb_attach_process(s, error);
    if (r != 0)
        return r;
    if (trust == FB_TRUST_CLEAN) {
        fb_load_clean(s);
        fresh_tiers(s);
        r = fb_grow_again(s, s->super->page_count) == 0
                ? fb_index_adopt(s, s->super->page_count)
                : fb_fail(error, -ENOSPC, "%s: no room for its index or its shared table", s->config.path);
    } else if (!fb_index_headers_hold(s)) {
        r = -EBADMSG;
    } else {
        fb_recover_in_place(s);
        fresh_tiers(s);
        r = fb_index_adopt(s, atomic_load(&s->shared->page_count));
    }
    if (r == 0) {
        uint32_t generation = atomic_load(&s->shared->verify_generation) % 255 + 1;
        atomic_store(&s->shared->verify_generation, generation);
        if (generation == 1)
            fb_index_forget_verified(s);
        fb_quota_count(s);
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
    if (s->live != NULL && s->live_made[0] != 0 && atomic_load(&s->shared->ready) == 0)
        unlink(s->live_made);
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
}

static int open_alone_with(fb_store *s, const struct fb_identity *identity, struct fb_index_super *before,
                           struct fb_index_super *plan, struct fb_error *error)
{
    char boot_id[40];
    int r = fb_boot_id(boot_id);
    if (r != 0)
        return fb_fail(error, r, "%s: cannot read the kernel's boot id", s->config.path);
    bool whole = fb_super_read(s, identity, before), known = whole || fb_super_recall(s, identity, before);
    struct fb_error mismatch;
    bool same =
        known && (s->config.tier_count == 0 || fb_geometry_compare(before, &s->config, &mismatch) == 0);
    if (known && !same && !s->config.reshape)
        return fb_fail(error, -EINVAL, "%s", mismatch.message);
    if (same)
        fb_geometry_recall(before, &s->config);
    enum fb_trust trust = same && whole ? fb_trust_judge(s, before, boot_id) : FB_TRUST_NOTHING;
    FB_POINT("open.judged");
    if (trust != FB_TRUST_NOTHING) {
        r = keep_going(s, trust, error);
        if (r == -EBADMSG) {
            detach(s);
            trust = FB_TRUST_NOTHING;
        }
    }
    if (trust == FB_TRUST_NOTHING) {
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
    struct fb_identity identity;
    struct fb_index_super *supers = calloc(2, sizeof *supers);
    if (supers == NULL)
        return fb_fail(error, -ENOMEM, "%s: out of memory", s->config.path);
    int r = fb_identity_open(s, &identity, error);
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
    struct fb_identity identity;
    char boot_id[40];
    struct fb_index_super super;
    int r = fb_identity_read(s, &identity);
    if (r != 0)
        return fb_fail(error, r == -ENOENT ? -EBADMSG : r, "%s: its identity is gone or damaged (%s)",
                       s->config.path, strerror(-r));
    r = fb_boot_id(boot_id);
    if (r != 0)
        return fb_fail(error, r, "%s: cannot read the kernel's boot id", s->config.path);
    memcpy(s->secret, identity.secret, sizeof s->secret);
    s->index_fd = fb_open_regular(s->root_fd, "index", s->read_only ? O_RDONLY : O_RDWR, 0);
    if (s->index_fd < 0)
        return fb_fail(error, s->index_fd == -ENOENT ? -EBADMSG : s->index_fd,
                       "%s: cannot open the index: %s", s->config.path, strerror(-s->index_fd));
    if (!fb_super_read(s, &identity, &super))
        return fb_fail(error, -EBADMSG, "%s: its index is damaged", s->config.path);
    if (s->config.reshape)
        return fb_fail(error, -EBUSY, "%s: tiers cannot change while others have the cache open",
                       s->config.path);
    if (s->config.tier_count != 0) {
        r = fb_geometry_compare(&super, &s->config, error);
        if (r != 0)
            return r;
    }
    fb_geometry_recall(&super, &s->config);
    if (super.boot_id[0] != 0 && strncmp(super.boot_id, boot_id, sizeof super.boot_id) != 0)
        return fb_fail(error, -EBUSY,
                       "%s: in use by another kernel; a cache directory belongs to one host at a time",
                       s->config.path);
    if (s->read_only && super.clean)
        return fb_fail(error, -ENODATA,
                       "%s: nobody has it open, and opening it anew takes the right to write",
                       s->config.path);
    if (super.boot_id[0] == 0 || super.clean)
        return -EAGAIN;
    if (super.dynamic_crc != fb_super_dynamic_crc(&super))
        return fb_fail(error, -EBADMSG, "%s: its index is damaged", s->config.path);
    r = fb_map_index(s, &super, false, error);
    if (r == 0)
        r = fb_map_live(s, error);
    if (r == 0 && !fb_index_file_holds(s, &super, atomic_load(&s->shared->page_count)))
        r = fb_fail(error, -EBADMSG, "%s: its index was cut short", s->config.path);
    if (r == 0)
        r = fb_tiers_open(s, false, error);
    for (uint32_t tier = 0; r == 0 && tier < s->super->tier_count; tier++)
        if (s->tier_fds[tier] < 0 && !fb_tier_failed(s, tier))
            r = fb_fail(error, s->tier_fds[tier],
                        "%s: the directory that it has open as tier %s is not there for this process; share "
                        "that mount",
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
    int r = s->read_only ? -EAGAIN : fb_row_claim(s, &s->rows_fd, &s->row);
    if (r != 0 && r != -EAGAIN)
        return fb_fail(error, r, "%s: cannot open rows.lock: %s", s->config.path, strerror(-r));
    s->has_row = r == 0;
    if (s->has_row) {
        s->me = fb_row_word(s, s->row);
        s->row_leases = s->leases + (uint64_t)s->row * s->segment_count;
        fb_row_describe(s, s->row);
    }
    if (fb_accounts_attach(s) != 0)
        return fb_fail(error, -ENOMEM, "%s: out of memory", s->config.path);
    return 0;
}

static int open_lock_files(fb_store *s, struct fb_error *error)
{
    int flags = s->read_only ? O_RDONLY : O_RDWR | O_CREAT;
    mode_t mode = (mode_t)s->config.file_mode;
    s->open_fd = fb_open_regular(s->root_fd, "open.lock", flags, mode);
    if (s->probe_fd < 0)
        s->probe_fd = fb_open_regular(s->root_fd, "rows.lock", flags, mode);
    if (s->open_fd >= 0 && s->probe_fd >= 0)
        return 0;
    int r = s->open_fd < 0 ? s->open_fd : s->probe_fd;
    return fb_fail(error, r, "%s: cannot open its lock files: %s", s->config.path, strerror(-r));
}

/* Two who close at once see each other's lock: each gives up its own and tries once more, and who comes last
 * is alone. Whoever has opened and closed the cache in between has left nothing to save. */
static bool is_last(fb_store *s)
{
    if (s->open_shared)
        return false;
    if (fb_byte_lock(s->open_fd, F_WRLCK, 0) == 0)
        return true;
    return fb_byte_lock(s->open_fd, F_UNLCK, 0) == 0 && fb_byte_lock(s->open_fd, F_WRLCK, 0) == 0 &&
           s->super->clean == 0 && s->super->live_id == s->shared->live_id;
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
    int64_t begun = fb_boottime_ms(), settled = begun;
    for (;;) {
        bool alone;
        int r = open_lock_files(s, error);
        if (r != 0)
            return r;
        r = take_open_lock(s, &alone);
        if (r == 0)
            r = alone ? fb_open_alone(s, error) : fb_open_joined(s, error);
        else
            settled = fb_boottime_ms(); /* somebody recovers */
        if (r == 0 && alone)
            r = fb_byte_lock(s->open_fd, F_RDLCK, 0); /* turns the lock at once, nobody comes between */
        /* Files that others have open can look damaged only for the moment before they are made. */
        bool damaged = r == -EBADMSG && fb_boottime_ms() - settled < SETTLE_MS;
        if (r != -EAGAIN && !damaged)
            return r;
        detach(s);
        if (s->index_fd >= 0)
            close(s->index_fd);
        s->index_fd = -1;
        /* A new descriptor for the next attempt: a child forked meanwhile would share the lock of this one.
         */
        close(s->open_fd);
        s->open_fd = -1;
        if (fb_boottime_ms() - begun > OPEN_TIMEOUT_MS)
            return fb_fail(error, -ETIMEDOUT, "%s: another process holds it in recovery for too long",
                           s->config.path);
        fb_fork_allow();
        usleep(OPEN_STEP_US);
        fb_fork_hold();
    }
}

/* A cache made for a group stays one, whoever opens it. */
static int follow_group(fb_store *s, struct fb_error *error)
{
    struct stat st;
    if (fstat(s->root_fd, &st) != 0)
        return fb_fail(error, -errno, "%s: %s", s->config.path, strerror(errno));
    if (s->config.group_id < 0 && (st.st_mode & 07777) == FB_GROUP_DIRECTORY_MODE) {
        s->config.file_mode = 0660;
        s->config.group_id = st.st_gid;
    }
    return 0;
}

static void free_store(fb_store *s)
{
    if (s->maps != NULL)
        fb_maps_close(s);
    fb_pool_close(s);
    free(s->live_count.bytes);
    free(s->private_accounts);
    detach(s);
    int fds[] = {s->root_fd, s->open_fd, s->probe_fd, s->index_fd, s->orphan_fd};
    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    pthread_mutex_destroy(&s->maps_lock);
    pthread_mutex_destroy(&s->pool_lock);
    pthread_mutex_destroy(&s->maintainer_lock);
    pthread_mutex_destroy(&s->round_lock);
    free(s);
}

static fb_store *new_store(const struct fb_config *config)
{
    fb_store *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->config = *config;
    s->read_only = config->read_only;
    s->maps_max = FB_MAPS_MAX;
    s->descriptors_max = FB_DESCRIPTORS_MAX;
    s->live_count.pages_a_round = FB_COUNT_PAGES_A_ROUND;
    s->root_fd = s->open_fd = s->rows_fd = s->probe_fd = s->index_fd = s->live_fd = s->maintainer_fd = -1;
    s->orphan_fd = s->fork_rows_fd = s->fork_open_fd = -1;
    for (uint32_t tier = 0; tier < FB_TIERS_MAX; tier++)
        s->tier_fds[tier] = s->tier_locks[tier] = -1;
    pthread_mutex_init(&s->maps_lock, NULL);
    pthread_mutex_init(&s->pool_lock, NULL);
    pthread_mutex_init(&s->maintainer_lock, NULL);
    pthread_mutex_init(&s->round_lock, NULL);
    return s;
}

int fb_open(const struct fb_config *config, fb_store **out, struct fb_error *error)
{
    *error = (struct fb_error){0};
    fb_failpoint_load();
    fb_store *s = new_store(config);
    if (s == NULL)
        return fb_fail(error, -ENOMEM, "%s: out of memory", config->path);
    s->root_fd = fb_open_versioned(s, config->path, !config->read_only, error);
    int r = s->root_fd < 0 ? s->root_fd : 0;
    if (r == 0)
        r = follow_group(s, error);
    fb_fork_hold();
    if (r == 0)
        r = open_locked(s, error);
    if (r == 0)
        fb_fork_register(s);
    else
        free_store(s);
    fb_fork_allow();
    if (r != 0)
        return r;
    /* Otherwise it starts with the first admission; a rebuild must go on for readers too. */
    if (s->has_row && atomic_load(&s->shared->rebuilding))
        fb_maintainer_start(s);
    *out = s;
    return 0;
}

void fb_close(fb_store *s)
{
    fb_fork_hold();
    fb_fork_unregister(s);
    if (s->has_row) {
        fb_maintainer_stop(s);
        if (is_last(s)) {
            fb_identity_mend(s);
            fb_save_clean(s);
        }
    }
    free_store(s);
    fb_fork_allow();
}
