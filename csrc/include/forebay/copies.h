/* Copies into memory that is new: buffers that were just allocated and are written for the first time.
 *
 * Their pages are not there yet. To fault them in one by one, as they are written, takes several times as
 * long as to copy the bytes; here the kernel is asked for all of a buffer's pages at once and, for buffers
 * that lie side by side, for huge pages where whole ones fit (MADV_POPULATE_WRITE, since Linux 5.14;
 * MADV_COLLAPSE, since 6.1). Memory that is used again has its pages, and is left as it is.
 *
 * Only pages that hold bytes of the buffers are asked for: the process is no larger for it in the end. A
 * refusal is no error, the pages then come one by one.
 *
 * Threads: any; each with buffers of its own.
 */
#ifndef FOREBAY_COPIES_H
#define FOREBAY_COPIES_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fb_copy {
    void *to; /* private memory of the process */
    const void *from;
    uint64_t length_bytes;
};

/* Make the copies. The buffers are best in the order in which they were allocated, so that neighbours stand
 * side by side; none overlaps another, or what is copied. */
void fb_copy_many(const struct fb_copy *copies, uint32_t count);

#ifdef __cplusplus
}
#endif

#endif
