/* Tier directories: made, recognized, refused. */
#ifndef FB_TIERS_H
#define FB_TIERS_H

#include "engine.h"

/* Open every tier's directory, making it where the store is new. A directory that belongs to another
 * cache is refused (-EINVAL); one that cannot be had is taken out (the store goes on without it), unless
 * none is left (-ENOENT). */
int fb_tiers_open(fb_store *s, bool create, struct fb_error *error);
void fb_tiers_close(fb_store *s);

#define FB_GROUP_DIRECTORY_MODE 02770
#define FB_OWN_DIRECTORY_MODE 0700

/* Open PATH/v1, making both if asked to: an open directory, or a negative errno with the reason. */
int fb_open_versioned(const fb_store *s, const char *path, bool make, struct fb_error *error);

enum fb_tier_opening {
    FB_TIER_MAKE,  /* alone: make the directory, recognize it or take it over */
    FB_TIER_CLAIM, /* come back: the directory itself must be there */
    FB_TIER_JOIN,  /* it must be the very one that the cache has open */
};
/* One tier's directory, with a shared lock on its identity; or a negative errno with the reason. */
int fb_tier_open(fb_store *s, uint32_t tier, enum fb_tier_opening how, int *lock_fd, struct fb_error *error);

/* Note in live which directories are the ones in use; the caller is alone. */
void fb_tiers_note(fb_store *s);
/* The tier's directory as of now, opened again if it was changed; -1 or less: not to be had. */
int fb_tier_directory(fb_store *s, uint32_t tier);
/* Another directory has come in the place of the one that this process has open: what is missing there says
 * nothing of the tier. */
static inline bool fb_tier_is_outdated(fb_store *s, uint32_t tier)
{
    return atomic_load(&s->tier_changes[tier]) != atomic_load(&s->shared->tiers[tier].directory_changes);
}
/* For the maintainer, of a tier that failed: find its directory where it has come back, give up what lay
 * in another one. False: it is not there. */
bool fb_tier_find_directory(fb_store *s, uint32_t tier);

#endif
