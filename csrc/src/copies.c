#include "forebay/copies.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define HUGE_PAGES "/sys/kernel/mm/transparent_hugepage/"
#define TEXT_BYTES 128
#define UNKNOWN UINT64_MAX
/* As much as one core can hope to find in the last cache. (What sysconf says of it is several times too much
 * on virtual machines.) */
#define PAST_CACHES_BYTES_MIN (32ull << 20)
#define PAST_CACHES_STEP 64 /* a cache line */

/* How large a huge page is; 0 where there are to be none. */
static _Atomic uint64_t huge_bytes_known = UNKNOWN;

static bool read_text(const char *path, char *text)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, text, TEXT_BYTES - 1);
    close(fd);
    text[length < 0 ? 0 : length] = '\0';
    return length > 0;
}

static uint64_t huge_bytes(void)
{
    uint64_t bytes = atomic_load_explicit(&huge_bytes_known, memory_order_relaxed);
    if (bytes != UNKNOWN)
        return bytes;
    char text[TEXT_BYTES];
    /* To collapse is asked for in so many words, and the kernel does it though it was told never to. */
    bool wanted = read_text(HUGE_PAGES "enabled", text) && strstr(text, "[never]") == NULL;
    bytes = wanted && read_text(HUGE_PAGES "hpage_pmd_size", text) ? strtoull(text, NULL, 10) : 0;
    if ((bytes & (bytes - 1)) != 0)
        bytes = 0;
    atomic_store_explicit(&huge_bytes_known, bytes, memory_order_relaxed);
    return bytes;
}

static bool is_there(uintptr_t page, uint64_t page_bytes)
{
    unsigned char state;
    return mincore((void *)page, page_bytes, &state) != 0 || (state & 1) != 0;
}

static void populate(uintptr_t begin, uintptr_t end)
{
    if (begin < end)
        (void)madvise((void *)begin, end - begin, MADV_POPULATE_WRITE);
}

/* Pages of memory that is all about to be written. */
static void get_pages(uintptr_t begin, uintptr_t end)
{
    uint64_t huge = huge_bytes();
    uintptr_t first = huge == 0 ? end : (begin + huge - 1) & ~(huge - 1), behind = end & ~(huge - 1);
    if (first >= behind) {
        populate(begin, end);
    } else if (madvise((void *)first, behind - first, MADV_COLLAPSE) == 0) {
        populate(begin, first);
        populate(behind, end);
    } else {
        /* An older kernel, or memory too much in pieces: that is found out once. */
        atomic_store_explicit(&huge_bytes_known, 0, memory_order_relaxed);
        populate(begin, end);
    }
}

/* Between neighbours lies less than a page, so that every page from the first to the last holds bytes of
 * them. Returns the number of the first copy that is none. */
static uint32_t neighbours(const struct fb_copy *copies, uint32_t count, uint32_t i, uint64_t page_bytes,
                           uintptr_t *begin, uintptr_t *end)
{
    *begin = (uintptr_t)copies[i].to;
    *end = *begin + copies[i].length_bytes;
    for (i++; i < count; i++) {
        if (copies[i].length_bytes == 0)
            continue;
        uintptr_t next = (uintptr_t)copies[i].to, next_end = next + copies[i].length_bytes;
        if (next >= *end && next - *end < page_bytes)
            *end = next_end;
        else if (next_end <= *begin && *begin - next_end < page_bytes)
            *begin = next;
        else
            break;
    }
    return i;
}

/* Past the caches, to which nothing has to be read for that: two thirds of a copy's time. For what is too
 * much to be found in them later anyway, as memcpy does by itself where one copy alone is. */
static void copy_past_caches(void *to, const void *from, uint64_t length_bytes)
{
#ifdef __SSE2__
    uint64_t head = -(uintptr_t)to % sizeof(__m128i), i = 0;
    if (length_bytes > head + PAST_CACHES_STEP) {
        memcpy(to, from, head);
        uint8_t *out = (uint8_t *)to + head;
        const uint8_t *in = (const uint8_t *)from + head;
        length_bytes -= head;
        for (; i + PAST_CACHES_STEP <= length_bytes; i += PAST_CACHES_STEP) {
            __m128i a = _mm_loadu_si128((const __m128i *)(in + i));
            __m128i b = _mm_loadu_si128((const __m128i *)(in + i + 16));
            __m128i c = _mm_loadu_si128((const __m128i *)(in + i + 32));
            __m128i d = _mm_loadu_si128((const __m128i *)(in + i + 48));
            _mm_stream_si128((__m128i *)(out + i), a);
            _mm_stream_si128((__m128i *)(out + i + 16), b);
            _mm_stream_si128((__m128i *)(out + i + 32), c);
            _mm_stream_si128((__m128i *)(out + i + 48), d);
        }
        to = out + i;
        from = in + i;
        length_bytes -= i;
        _mm_sfence(); /* whoever is told of the copy finds all of it */
    }
#endif
    memcpy(to, from, length_bytes);
}

/* Whether there are pages to be asked for. One is looked at, in the middle of the copy that was allocated
 * last, where no other's bytes have brought a page: what is used again is so from the beginning. */
static bool is_new(const struct fb_copy *copies, uint32_t count, uint64_t page_bytes)
{
    for (uint32_t i = count; i-- > 0;)
        if (copies[i].length_bytes >= 2 * page_bytes) {
            uintptr_t middle = (uintptr_t)copies[i].to + copies[i].length_bytes / 2;
            return !is_there(middle & ~(page_bytes - 1), page_bytes);
        }
    return false;
}

void fb_copy_many(const struct fb_copy *copies, uint32_t count)
{
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE), all_bytes = 0;
    bool asks = is_new(copies, count, page_bytes);
    for (uint32_t i = 0; asks && i < count;) {
        uintptr_t begin, end;
        if (copies[i].length_bytes == 0) {
            i++;
            continue;
        }
        i = neighbours(copies, count, i, page_bytes, &begin, &end);
        get_pages(begin & ~(page_bytes - 1), (end + page_bytes - 1) & ~(page_bytes - 1));
    }
    for (uint32_t i = 0; i < count; i++)
        all_bytes += copies[i].length_bytes;
    for (uint32_t i = 0; i < count; i++)
        if (all_bytes < PAST_CACHES_BYTES_MIN)
            memcpy(copies[i].to, copies[i].from, copies[i].length_bytes);
        else
            copy_past_caches(copies[i].to, copies[i].from, copies[i].length_bytes);
}
