/* Process rows: who is alive, told by open-file-description locks, never by process ids. */
#ifndef FB_ROWS_H
#define FB_ROWS_H

#include "engine.h"

/* Bytes of rows.lock: one a row, then the maintainer's. */
#define FB_MAINTAINER_BYTE(s) ((s)->super->row_count)

/* Lock or test one byte of a descriptor; 0, -EAGAIN, or another negative errno. */
int fb_byte_lock(int fd, short type, uint64_t byte);
bool fb_byte_is_locked(int fd, uint64_t byte);

/* Take a free row through a new descriptor of rows.lock; its lease counts are cleared. 0 or -EAGAIN
 * (table full; *fd_out untouched). */
int fb_row_claim(fb_store *s, int *fd_out, uint32_t *row_out);
void fb_row_describe(fb_store *s, uint32_t row);
uint32_t fb_row_word(fb_store *s, uint32_t row);

/* Whether the process that wrote this lock word is gone. About 1 us. */
bool fb_owner_is_dead(fb_store *s, uint32_t word);
/* Whether the process that wrote this word lives and has leases on the segment. A word that was read from a
 * file may be an older one that looks like one of today. */
bool fb_owner_leases(fb_store *s, uint32_t word, uint32_t segment);

/* Leases that live processes hold on a segment; dead rows' counts are cleared on the way. */
bool fb_segment_is_leased(fb_store *s, uint32_t segment);

/* Lock words. 0, -EOWNERDEAD (taken over from a dead holder: mend what it guards), -ETIMEDOUT. */
int fb_lock(fb_store *s, fb_lockword *lock, uint32_t timeout_ms);
bool fb_try_lock(fb_store *s, fb_lockword *lock);
void fb_unlock(fb_lockword *lock);

#endif
