/* Tier directories: made, recognized, refused. */
#ifndef FB_TIERS_H
#define FB_TIERS_H

#include "engine.h"

/* Open every tier's directory, making it where the store is new. A directory that belongs to another
 * cache is refused (-EINVAL); one that cannot be had is taken out (the store goes on without it), unless
 * none is left (-ENOENT). */
int fb_tiers_open(fb_store *s, bool create, struct fb_error *error);
void fb_tiers_close(fb_store *s);

/* Open PATH/v1, making both: an open directory, or a negative errno with the reason. */
int fb_open_versioned(const char *path, mode_t mode, int64_t group_id, struct fb_error *error);

#endif
