/* Views live on in a forked child: the child gets a row of its own, with leases for them, before the
 * parent can give back its own. Lock descriptors are shared over fork, so the child needs fresh ones. */
#include <fcntl.h>
#include <unistd.h>

#include "account.h"
#include "maintain.h"
#include "open.h"
#include "platform.h"
#include "rows.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct fb_store *registry;
static pthread_once_t handlers_once = PTHREAD_ONCE_INIT;
static _Atomic uint32_t generation;

static void lock_store(fb_store *s)
{
    pthread_mutex_lock(&s->maintainer_lock);
    pthread_mutex_lock(&s->maps_lock);
    pthread_mutex_lock(&s->pool_lock);
}

static void unlock_store(fb_store *s)
{
    pthread_mutex_unlock(&s->pool_lock);
    pthread_mutex_unlock(&s->maps_lock);
    pthread_mutex_unlock(&s->maintainer_lock);
}

/* With no row for the child its views are held by the parent's row, which stays alive as long as either of
 * the two does; the child gives them back there. Lent before the fork, for the child may be the first to run.
 */
static void lend_leases(fb_store *s)
{
    for (uint32_t i = 0; i < s->segment_count; i++)
        if (s->held[i] != 0)
            atomic_fetch_add(&s->row_leases[i], s->held[i]);
}

/* A child has the store open for itself, row or no row: a parent that closes while its child reads must not
 * take itself for the last one. */
static void prepare_open_lock(fb_store *s)
{
    s->fork_open_fd = fb_open_regular(s->root_fd, "open.lock", O_RDWR, 0);
    if (s->fork_open_fd >= 0 && fb_byte_lock(s->fork_open_fd, F_RDLCK, 0) == 0)
        return;
    if (s->fork_open_fd >= 0)
        close(s->fork_open_fd);
    s->fork_open_fd = -1;
    s->open_shared = true;
}

/* The child's row starts with all of the parent's leases; the child keeps those that views of its own
 * memory hold. */
static void prepare_row(fb_store *s)
{
    s->fork_rows_fd = -1;
    prepare_open_lock(s);
    if (!s->has_row || s->fork_open_fd < 0 || fb_row_claim(s, &s->fork_rows_fd, &s->fork_row) != 0) {
        s->fork_rows_fd = -1;
        lend_leases(s);
        return;
    }
    _Atomic uint32_t *leases = s->leases + (uint64_t)s->fork_row * s->segment_count;
    for (uint32_t i = 0; i < s->segment_count; i++) {
        uint32_t count = atomic_load(&s->row_leases[i]);
        if (count != 0)
            atomic_store(&leases[i], count);
    }
}

static void before_fork(void)
{
    pthread_mutex_lock(&registry_lock);
    for (fb_store *s = registry; s != NULL; s = s->next) {
        lock_store(s);
        if (s->row_leases != NULL)
            prepare_row(s);
    }
}

static void after_fork_in_parent(void)
{
    for (fb_store *s = registry; s != NULL; s = s->next) {
        if (s->fork_rows_fd >= 0)
            close(s->fork_rows_fd);
        if (s->fork_open_fd >= 0)
            close(s->fork_open_fd);
        s->fork_rows_fd = s->fork_open_fd = -1;
        unlock_store(s);
    }
    pthread_mutex_unlock(&registry_lock);
}

static void become_child(fb_store *s)
{
    for (uint32_t i = 0; i < s->segment_count; i++)
        s->maps[i].descriptor_users = 0; /* the threads that used them are the parent's */
    fb_maintainer_forget(s);
    atomic_store(&s->tiers_reopening, false); /* of a thread of the parent's */
    if (s->fork_open_fd >= 0) {
        close(s->open_fd);
        s->open_fd = s->fork_open_fd;
        s->fork_open_fd = -1;
    }
    if (!s->has_row)
        return;
    if (s->fork_rows_fd < 0) {
        s->orphan_fd = s->rows_fd;
        s->rows_fd = -1;
        s->has_row = false;
        s->me = 0; /* what the parent began is the parent's */
        return;
    }
    close(s->rows_fd);
    s->rows_fd = s->fork_rows_fd;
    s->fork_rows_fd = -1;
    s->row = s->fork_row;
    s->me = fb_row_word(s, s->row);
    s->row_leases = s->leases + (uint64_t)s->row * s->segment_count;
    (void)fb_accounts_attach(s); /* which fails for a read-only opener alone */
    for (uint32_t i = 0; i < s->segment_count; i++)
        if (atomic_load(&s->row_leases[i]) != s->held[i])
            atomic_store(&s->row_leases[i], s->held[i]);
    fb_row_describe(s, s->row);
}

uint32_t fb_fork_generation(void)
{
    return atomic_load_explicit(&generation, memory_order_relaxed);
}

static void after_fork_in_child(void)
{
    atomic_fetch_add(&generation, 1);
    for (fb_store *s = registry; s != NULL; s = s->next) {
        become_child(s);
        unlock_store(s);
    }
    pthread_mutex_unlock(&registry_lock);
}

static void install_handlers(void)
{
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

void fb_fork_hold(void)
{
    pthread_once(&handlers_once, install_handlers);
    pthread_mutex_lock(&registry_lock);
}

void fb_fork_allow(void)
{
    pthread_mutex_unlock(&registry_lock);
}

void fb_fork_register(fb_store *s)
{
    s->next = registry;
    registry = s;
}

void fb_fork_unregister(fb_store *s)
{
    for (fb_store **link = &registry; *link != NULL; link = &(*link)->next)
        if (*link == s) {
            *link = s->next;
            break;
        }
}
