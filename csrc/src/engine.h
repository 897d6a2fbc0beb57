/* The open store as its parts see it. */
#ifndef FB_ENGINE_H
#define FB_ENGINE_H

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "forebay/crc32c.h"
#include "forebay/store.h"
#include "layout.h"

#define FB_MAPS_MAX 1024u
#define FB_DESCRIPTORS_MAX 256u
#define FB_COUNT_PAGES_A_ROUND 256u
#define FB_POOL_BYTES_MAX (32u << 20)

#define fb_likely(x) __builtin_expect(!!(x), 1)
#define fb_unlikely(x) __builtin_expect(!!(x), 0)

/* What this process has open of a segment file. Each is of one file epoch: a file that was removed
 * and made anew under the same number is another file. */
struct fb_map {
    _Atomic(uint8_t *) base; /* read-only map; used only under a lease of this process's row */
    _Atomic uint32_t base_epoch;
    uint64_t base_bytes;
    _Atomic(uint8_t *) writable; /* recycled MEM segments only; used only under a lease */
    _Atomic uint32_t writable_epoch;
    uint64_t writable_bytes; /* the rest under maps_lock */
    uint32_t reuses, reuse_generation;
    int descriptor; /* -1: none */
    uint32_t descriptor_epoch;
    uint32_t descriptor_users;
};

/* A count of the bytes that slots name, by segment, some pages a round; it holds for segments that were
 * sealed before it began. */
struct fb_live_count {
    uint64_t *bytes;        /* NULL: none yet */
    uint32_t page;          /* to be visited next */
    uint32_t pages_a_round; /* tests lower it */
    uint32_t used_by;       /* tiers, a bit each, that are through with it */
    uint32_t deletes;       /* as of when it began, like age */
    uint64_t age;
    bool complete;
};

struct fb_store {
    struct fb_config config;
    struct fb_index_super *super;
    uint8_t *index;
    uint64_t index_map_bytes;
    uint8_t *live;
    uint64_t live_map_bytes;
    struct fb_live_super *shared;
    struct fb_row *rows;
    _Atomic uint32_t *leases; /* row_count x segment_count */
    _Atomic uint32_t *directory;
    struct fb_page_meta *metas;
    struct fb_segment *segments;
    struct fb_dataset *datasets;
    struct fb_flight_bucket *flights;
    struct fb_promotion *promotions;
    _Atomic uint32_t *evicted_ghosts, *refused_ghosts;
    struct fb_account *account_shards; /* shards x FB_ACCOUNTS */
    struct fb_quick *quick_rows;       /* row_count x FB_ACCOUNTS */
    _Atomic uint8_t *touches;
    uint32_t directory_shift;
    uint32_t segment_count;

    int root_fd, open_fd, rows_fd, probe_fd, index_fd, live_fd, maintainer_fd;
    bool has_row, read_only;
    uint32_t row;
    uint32_t me; /* own lock word */
    _Atomic uint32_t *row_leases;
    struct fb_account *accounts;         /* where this process counts: FB_ACCOUNTS of them */
    struct fb_quick *quick;              /* and its quick hits; NULL: without a row */
    struct fb_account *private_accounts; /* of a read-only opener */
    uint32_t *held;                      /* views a segment, under the interpreter lock */
    uint8_t secret[16];

    struct fb_map *maps;
    uint8_t *segment_tier; /* tier of each segment number */
    pthread_mutex_t maps_lock;
    uint32_t maps_count, maps_hand, writable_count, descriptors_count, descriptors_hand;
    uint32_t maps_max, descriptors_max;          /* FB_MAPS_MAX and FB_DESCRIPTORS_MAX; tests lower them */
    _Atomic int tier_fds[FB_TIERS_MAX];          /* directories of segments; below 0: not to be had */
    _Atomic int tier_locks[FB_TIERS_MAX];        /* their identities, locked */
    _Atomic uint32_t tier_changes[FB_TIERS_MAX]; /* as of which change of directory */
    _Atomic bool tiers_reopening;

    pthread_mutex_t pool_lock;
    void *pool[12];
    uint64_t pool_bytes;

    pthread_mutex_t maintainer_lock;
    pthread_t maintainer, syncer;
    pthread_mutex_t round_lock; /* one round of maintenance at a time */
    _Atomic bool maintainer_running;
    bool syncer_running;
    _Atomic uint32_t syncer_wake;
    _Atomic bool maintainer_stop;
    int64_t count_again_ms; /* committed bytes of datasets, not before then */
    _Atomic int64_t pins_refused_ms[FB_TIERS_MAX];
    _Atomic int64_t cgroup_read_ms;
    _Atomic uint64_t cgroup_allowance; /* bytes that may be taken before the memory cgroups are read again */
    int64_t upkeep_ms;
    int64_t promote_refill_ms;
    uint64_t promote_tokens;
    uint32_t expire_page;
    uint64_t expire_left;
    struct fb_live_count live_count;
    uint32_t compacted_deletes[FB_TIERS_MAX][2]; /* by whether room was wanted */

    int fork_rows_fd, fork_open_fd; /* a child's, between the fork handlers */
    uint32_t fork_row;
    int orphan_fd;    /* a parent's row kept alive for inherited views when the table was full */
    bool open_shared; /* a child holds the same lock on open.lock: nobody can tell who is the last */
    char live_made[FB_PATH_MAX + 64]; /* live file made here, not yet in the superblock */
    struct fb_store *next;            /* registry for fork */
};

/* For no dataset. */
static inline void fb_count(struct fb_store *s, enum fb_counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&s->accounts[0].counters[c], n, memory_order_relaxed);
}

static inline struct fb_page *fb_page_at(struct fb_store *s, uint32_t page)
{
    return (
        struct fb_page *)(s->index + FB_INDEX_SUPER_BYTES +
                          (uint64_t)((s->segment_count * 64u + FB_PAGE_BYTES - 1u) & ~(FB_PAGE_BYTES - 1u)) +
                          (uint64_t)page * FB_PAGE_BYTES);
}

static inline _Atomic uint8_t *fb_touch_at(struct fb_store *s, uint32_t page, uint32_t slot)
{
    return s->touches + (uint64_t)page * FB_TOUCH_PAGE_BYTES + slot;
}

/* A full fence; ThreadSanitizer knows read-modify-writes but not fences. */
static inline void fb_fence(void)
{
#if defined(__SANITIZE_THREAD__)
    static _Atomic uint32_t word;
    atomic_fetch_add_explicit(&word, 0, memory_order_seq_cst);
#else
    atomic_thread_fence(memory_order_seq_cst);
#endif
}

static inline void fb_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

#endif
