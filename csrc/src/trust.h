/* What lies in a cache directory, and how far it is believed. */
#ifndef FB_TRUST_H
#define FB_TRUST_H

#include "engine.h"

struct fb_identity {
    uint8_t store_id[16];
    uint8_t secret[16];
    uint32_t crc;
};

/* Which cache this is, and the secret of its keys. It outlives the index, so that a rebuilt one finds its
 * blocks under the same keys. 0, -ENOENT, -EBADMSG (damaged), or why it cannot be read. */
int fb_identity_read(fb_store *s, struct fb_identity *out);
/* The same, made anew where there is none or a damaged one; the caller is alone. -EPROTO: an index lies
 * there that is not ours. */
int fb_identity_open(fb_store *s, struct fb_identity *out, struct fb_error *error);
/* Write it again where it was lost while the store was open; the caller is alone. */
void fb_identity_mend(fb_store *s);

/* The index's superblock, when its static part is whole and of this cache. */
bool fb_super_read(fb_store *s, const struct fb_identity *identity, struct fb_index_super *out);
/* A second copy of that part, in a file of its own, for an index that is lost. */
void fb_super_remember(fb_store *s, const struct fb_index_super *super);
bool fb_super_recall(fb_store *s, const struct fb_identity *identity, struct fb_index_super *out);

enum fb_trust { FB_TRUST_LIVE, FB_TRUST_CLEAN, FB_TRUST_NOTHING };
/* What of the index holds, for whoever is alone. Maps it (and live) unless nothing does. */
enum fb_trust fb_trust_judge(fb_store *s, const struct fb_index_super *super, const char *boot_id);

/* The file reaches over this many pages, so that none of them faults. */
bool fb_index_file_holds(fb_store *s, const struct fb_index_super *super, uint64_t page_count);
/* Sum of the saved table of segments and of the pages, of a store at rest. */
uint32_t fb_contents_crc(fb_store *s, uint64_t page_count);

#endif
