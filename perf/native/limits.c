/* The limits that the store is measured against: plain loops around memcpy, CRC-32C and pwrite.
 *
 * Each returns the nanoseconds of the whole loop, so that no interpreter stands between two
 * rounds of it. The caller guarantees that every block named lies inside its region and that
 * source and destination are mapped and touched, unless first touches are what is measured.
 */
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "forebay/crc32c.h"
#include "forebay/store.h"

static uint64_t now_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Copy `count` blocks, each from where it lies, into one buffer. */
uint64_t limit_copy_out(uint8_t *buffer, const uint8_t *const *blocks, uint64_t block_bytes, uint64_t count)
{
    uint64_t started = now_ns();
    for (uint64_t index = 0; index < count; index++)
        memcpy(buffer, blocks[index], block_bytes);
    return now_ns() - started;
}

/* Copy `count` blocks into a region of `region_blocks`, round and round, with a checksum a chunk. */
uint64_t limit_copy_crc(uint8_t *region, uint64_t region_blocks, const uint8_t *source,
                        uint64_t source_blocks, uint64_t block_bytes, uint64_t count)
{
    uint32_t sums[1024];
    uint64_t started = now_ns();
    for (uint64_t index = 0; index < count; index++)
        fb_copy_crc32c_chunks(region + index % region_blocks * block_bytes,
                              source + index % source_blocks * block_bytes, block_bytes, FB_CHUNK_BYTES,
                              sums);
    return now_ns() - started;
}

/* Append `count` blocks to a file; 0 when a write fell short. */
uint64_t limit_pwrite(int file, const uint8_t *source, uint64_t source_blocks, uint64_t block_bytes,
                      uint64_t count)
{
    uint64_t started = now_ns();
    for (uint64_t index = 0; index < count; index++) {
        const uint8_t *block = source + index % source_blocks * block_bytes;
        if (pwrite(file, block, block_bytes, (off_t)(index * block_bytes)) != (ssize_t)block_bytes)
            return 0;
    }
    return now_ns() - started;
}
