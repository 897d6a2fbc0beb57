/* The steps of opening, in the order in which fb_open takes them. */
#ifndef FB_OPEN_H
#define FB_OPEN_H

#include "engine.h"

/* Recovery by whoever holds open.lock alone: make or adopt index and live. */
int fb_open_alone(fb_store *s, struct fb_error *error);
/* Joining a store that others have open. -EAGAIN: not ready, ask for the lock again. */
int fb_open_joined(fb_store *s, struct fb_error *error);

/* Map the index; with reset, as an empty file of this superblock. */
int fb_map_index(fb_store *s, const struct fb_index_super *plan, bool reset, struct fb_error *error);
/* Map the live file that the superblock names. */
int fb_map_live(fb_store *s, struct fb_error *error);
/* Make a live file where there is room: a MEM tier, /dev/shm, the cache directory. */
int fb_make_live(fb_store *s, struct fb_error *error);
void fb_unlink_live(fb_store *s);

/* Private tables, row and counters of this process. */
int fb_attach_process(fb_store *s, struct fb_error *error);

/* Lock words, leases and half-done writes of processes that died; the caller is alone. */
void fb_recover_in_place(fb_store *s);
void fb_save_clean(fb_store *s);
void fb_load_clean(fb_store *s);

/* fork. While held no other thread forks: a child would share the locks of a store that is being opened or
 * closed, and keep them. Registering takes that for granted. */
void fb_fork_hold(void);
void fb_fork_allow(void);
void fb_fork_register(fb_store *s);
void fb_fork_unregister(fb_store *s);

#endif
