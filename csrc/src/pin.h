/* Pins, and room for them: 80 % of what a tier may hold.
 *
 * A claim goes before each pin, in the row of whoever makes it and in the tier's hint, so that of two who ask
 * for the last room at once at least one sees the other. The hint only errs upwards; before a refusal the
 * index is counted, and the claims of all who live. */
#ifndef FB_PIN_H
#define FB_PIN_H

#include "engine.h"

/* Claim room for so many bytes. 0, or -EDQUOT with the figures in *refused (which may be NULL). */
int fb_pin_claim(fb_store *s, uint32_t tier, uint64_t bytes, struct fb_pin_room *refused);
/* The same for whoever does without where it does not fit, and asks for every block: while there is no room
 * the index is counted once a second at most. */
bool fb_pin_try(fb_store *s, uint32_t tier, uint64_t bytes);
/* Of what was claimed so many bytes are pinned by now, or never will be. */
void fb_pin_settle(fb_store *s, uint32_t tier, uint64_t bytes, bool pinned);
/* Bytes that were pinned in another tier, or found pinned in one that is rebuilt. */
void fb_pin_add(fb_store *s, uint32_t tier, uint64_t bytes);
/* A tier whose pins nobody has counted yet. */
void fb_pin_forget(fb_store *s, uint32_t tier);

#endif
