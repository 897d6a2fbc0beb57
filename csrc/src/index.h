/* The index: extendible hashing over 64 KiB pages of 32-byte slots, linear probing inside a page.
 *
 * Readers take no lock: they read slots under the page's sequence word. Writers hold the page's lock
 * word and make the sequence odd meanwhile. A page splits in two when it is 85 % full; pages never
 * move and are never freed, so a reader with an old directory entry reads a page that is still a page.
 */
#ifndef FB_INDEX_H
#define FB_INDEX_H

#include "engine.h"

struct fb_found {
    uint32_t page, slot;
    uint32_t sequence; /* of the page, when the slot was read */
    uint64_t place, extent;
};

uint32_t fb_index_entry(const fb_store *s, uint64_t lo);
/* Whether a directory entry names a page that is there; it is not when `live` is damaged. A page is counted
 * before the directory names it. */
static inline bool fb_page_exists(fb_store *s, uint32_t page)
{
    return fb_likely(page < atomic_load_explicit(&s->shared->page_count, memory_order_relaxed));
}

/* Bring the slot that a key hashes to into the cache. */
void fb_index_prefetch(fb_store *s, uint64_t lo);

/* 0, -ENOENT, or -EBUSY: the page is being written by a process that does not go on. Of what is found,
 * place and extent are of one moment. */
int fb_index_find(fb_store *s, const struct fb_key *key, struct fb_found *out);

/* Whether no writer is in the midst of a change to the page that holds (or would hold) a key. */
bool fb_index_is_settled(const fb_store *s, uint64_t lo);

/* The page that holds (or would hold) a key, locked; mended first if its last holder died.
 * 0 or -ETIMEDOUT. Unlock with fb_index_unlock. */
int fb_index_lock(fb_store *s, uint64_t lo, uint32_t *page_out);
/* The same for a reader, who waits for nobody: -ETIMEDOUT at once where the holder lives. */
int fb_index_try_lock(fb_store *s, uint64_t lo, uint32_t *page_out);
void fb_index_unlock(fb_store *s, uint32_t page);

/* Under the page's lock. */
void fb_page_set(fb_store *s, uint32_t page, uint32_t slot, uint64_t place, uint64_t extent);
/* While a rebuild goes on a tombstone takes the slot (false), lest a segment that is still to be scanned
 * bring back what the slot's block was put in place of. */
bool fb_page_remove(fb_store *s, uint32_t page, uint32_t slot);

/* Insert or replace; *old is the place that was there (0: none). 0, -ENOSPC or -ETIMEDOUT. `guard`
 * is asked under the lock, with the old place, and may refuse (-ECANCELED). */
typedef bool (*fb_guard)(fb_store *s, void *context, uint64_t old_place);
int fb_index_put(fb_store *s, const struct fb_key *key, uint64_t place, uint64_t extent, fb_guard guard,
                 void *context, uint64_t *old);

/* Give the slot another location or verified mark (new_place != 0), or remove it, if it still names
 * expected's location. Pin and expiry stay as they are by then. 0, -ENOENT, -ETIMEDOUT. */
int fb_index_swap(fb_store *s, uint64_t lo, uint64_t check, uint64_t expected, uint64_t new_place);
/* The same; `guard` is asked under the lock, with the place that is there, and may refuse (-ECANCELED). */
int fb_index_move(fb_store *s, uint64_t lo, uint64_t check, uint64_t expected, uint64_t new_place,
                  fb_guard guard, void *context);
/* As fb_index_swap, for a reader who tells that it has verified the bytes: only if it need not wait. */
void fb_index_mark(fb_store *s, uint64_t lo, uint64_t check, uint64_t expected, uint64_t new_place);
/* A key's slot as it is under the page's lock: what a writer decided under that lock before is seen. 0,
 * -ENOENT, -ETIMEDOUT. */
int fb_index_find_locked(fb_store *s, const struct fb_key *key, struct fb_found *out);
/* Whoever had a page locked has left it since, so that what its guard allowed is there to be seen. 0 or
 * -ETIMEDOUT. */
int fb_index_settle(fb_store *s);
/* Remove every slot whose place has these bits. 0, or -ETIMEDOUT when a page could not be looked at. */
int fb_index_sweep(fb_store *s, uint64_t mask, uint64_t bits);

/* Make a new, empty index (sole opener), or adopt the pages that are there: -EBADMSG when they do not
 * cover the directory exactly once. */
int fb_index_format(fb_store *s);
int fb_index_adopt(fb_store *s, uint32_t page_count);
/* Every page's header names entries of the directory: nothing that is mended by it runs astray. */
bool fb_index_headers_hold(fb_store *s);

/* No slot counts as verified any more (sole opener; the generation has come round). */
void fb_index_forget_verified(fb_store *s);

/* Rebuild one page from whatever valid slots it holds; its lock is held. */
void fb_page_repair(fb_store *s, uint32_t page);

/* Visit every slot, page by page, each page as it was at one moment. False: a page could not be seen, for
 * its writer does not go on, or memory is out. */
typedef void (*fb_visitor)(void *context, uint64_t lo, uint64_t check, uint64_t place, uint64_t extent);
bool fb_index_visit(fb_store *s, uint32_t first_page, uint32_t page_count, fb_visitor visit, void *context);
/* Visit every slot, each page under its lock. 0; -EAGAIN: pages were split meanwhile, and slots may have been
 * passed; -ETIMEDOUT. */
int fb_index_visit_locked(fb_store *s, fb_visitor visit, void *context);
/* Repair the pages that dead processes left locked. */
void fb_index_mend(fb_store *s);

#endif
