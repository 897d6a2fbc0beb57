#include "grow.h"

#include "failpoint.h"
#include "platform.h"
#include "rows.h"

#define GROW_PAGES 16u /* 1 MiB of index and 32 KiB of live at a time */
#define GROW_TIMEOUT_MS 1000u

uint64_t fb_page_offset(const fb_store *s, uint32_t page)
{
    uint64_t table = ((uint64_t)s->segment_count * sizeof(struct fb_segment) + FB_PAGE_BYTES - 1) &
                     ~(uint64_t)(FB_PAGE_BYTES - 1);
    return FB_INDEX_SUPER_BYTES + table + (uint64_t)page * FB_PAGE_BYTES;
}

uint64_t fb_touch_offset(const fb_store *s, uint32_t page)
{
    return s->shared->total_bytes + (uint64_t)page * FB_TOUCH_PAGE_BYTES;
}

/* Allocating anew what is allocated already is harmless, so nothing is remembered of a grower that
 * died between the two files. */
static int allocate(fb_store *s, uint32_t page)
{
    if (page % GROW_PAGES != 0)
        return 0;
    int r = fb_reserve_bytes(s->index_fd, fb_page_offset(s, page), (uint64_t)GROW_PAGES * FB_PAGE_BYTES);
    if (r == 0)
        r = fb_reserve_bytes(s->live_fd, fb_touch_offset(s, page), GROW_PAGES * FB_TOUCH_PAGE_BYTES);
    return r;
}

int fb_grow_again(fb_store *s, uint32_t page_count)
{
    uint64_t pages = ((uint64_t)page_count + GROW_PAGES - 1) / GROW_PAGES * GROW_PAGES;
    if (pages == 0)
        return 0;
    int r = fb_reserve_bytes(s->index_fd, 0, fb_page_offset(s, 0) + pages * FB_PAGE_BYTES);
    return r != 0 ? r : fb_reserve_bytes(s->live_fd, fb_touch_offset(s, 0), pages * FB_TOUCH_PAGE_BYTES);
}

int fb_grow_page(fb_store *s, uint32_t *page_out)
{
    int r = fb_lock(s, &s->shared->grow_lock, GROW_TIMEOUT_MS);
    if (r == -ETIMEDOUT)
        return r;
    uint32_t spare = atomic_exchange(&s->shared->spare_page, 0);
    uint32_t page = atomic_load(&s->shared->page_count);
    r = 0;
    if (spare != 0)
        page = spare - 1;
    else if (page >= s->super->page_count_max)
        r = -ENOSPC;
    else
        r = allocate(s, page);
    FB_POINT("grow.allocated");
    if (r == 0 && spare == 0)
        atomic_store(&s->shared->page_count, page + 1);
    fb_unlock(&s->shared->grow_lock);
    if (r == 0)
        *page_out = page;
    return r == 0 ? 0 : r == -ETIMEDOUT ? r : -ENOSPC;
}
