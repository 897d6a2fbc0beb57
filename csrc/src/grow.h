/* Growth of index and live by pages: both are allocated for real before they are touched. */
#ifndef FB_GROW_H
#define FB_GROW_H

#include "engine.h"

/* The next page number, its 64 KiB in the index and its touch bytes in live allocated. 0, -ENOSPC (at
 * the limit, or the file system is full), or -ETIMEDOUT. */
int fb_grow_page(fb_store *s, uint32_t *page_out);

/* The same for the first page_count pages of an index that is there already: touch bytes in a new live file,
 * and whatever a copy of the index has left out. */
int fb_grow_again(fb_store *s, uint32_t page_count);

/* File offset of a page in the index, and of a page's touch bytes in live. */
uint64_t fb_page_offset(const fb_store *s, uint32_t page);
uint64_t fb_touch_offset(const fb_store *s, uint32_t page);

#endif
