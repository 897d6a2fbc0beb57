/* Copying with a checksum beside plain memcpy, per size and working set.
 *
 *     make -C tests/csrc micro [ARGS=--json]
 *
 * Four ways take turns within each round, so that a machine that changes its speed changes it for all; the
 * figure is the median over rounds, and a ratio is that of two medians of one run:
 *
 *   memcpy            the bare copy
 *   fused             fb_copy_crc32c_chunks, as put uses it
 *   memcpy, fb_crc    memcpy of the whole block, then fb_crc32c_chunks over it
 *   memcpy, streams   memcpy of the whole block, then one pass of the three-stream (else portable)
 * implementation
 *
 * Working sets: "near" copies within what the second-level cache holds, "far" into 256 MiB that were last
 * touched long ago, as a recycled segment was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "crc32c_impl.h"
#include "forebay/crc32c.h"
#include "forebay/store.h"

#define NEAR_BYTES ((size_t)384 << 10)
#define FAR_BYTES ((size_t)256 << 20)
#define SOURCE_BYTES ((size_t)8 << 20)
#define ROUND_BYTES ((size_t)64 << 20)
#define ROUND_COUNT 9
#define CHUNKS_MAX 64

enum way { PLAIN, FUSED, THEN_CRC, THEN_STREAMS, WAY_COUNT };

static const char *const way_names[WAY_COUNT] = {"memcpy", "fused", "memcpy_then_crc", "memcpy_then_streams"};

struct workload {
    const char *name;
    size_t block_bytes;
    size_t destination_bytes;
    size_t source_bytes;
};

static const struct workload workloads[] = {
    {"near_16k", 16 << 10, NEAR_BYTES, NEAR_BYTES}, {"near_128k", 128 << 10, NEAR_BYTES, NEAR_BYTES},
    {"far_16k", 16 << 10, FAR_BYTES, SOURCE_BYTES}, {"far_128k", 128 << 10, FAR_BYTES, SOURCE_BYTES},
    {"far_1m", 1 << 20, FAR_BYTES, SOURCE_BYTES},   {"far_4m", 4 << 20, FAR_BYTES, SOURCE_BYTES},
};

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint8_t *allocate(size_t length_bytes)
{
    void *bytes =
        mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (bytes == MAP_FAILED) {
        perror("mmap");
        exit(EXIT_FAILURE);
    }
    return bytes;
}

static const struct fb_crc32c_impl *streams_impl(void)
{
#if defined(__x86_64__)
    if (fb_crc32c_sse42.is_supported())
        return &fb_crc32c_sse42;
#elif defined(__aarch64__)
    if (fb_crc32c_arm64.is_supported())
        return &fb_crc32c_arm64;
#endif
    return &fb_crc32c_portable;
}

static uint32_t copy_block(enum way way, uint8_t *destination, const uint8_t *source, size_t block_bytes)
{
    uint32_t sums[CHUNKS_MAX] = {0};

    switch (way) {
    case PLAIN:
        memcpy(destination, source, block_bytes);
        break;
    case FUSED:
        fb_copy_crc32c_chunks(destination, source, block_bytes, FB_CHUNK_BYTES, sums);
        break;
    case THEN_CRC:
        memcpy(destination, source, block_bytes);
        fb_crc32c_chunks(source, block_bytes, FB_CHUNK_BYTES, sums);
        break;
    case THEN_STREAMS:
        memcpy(destination, source, block_bytes);
        sums[0] = streams_impl()->extend(FB_CRC32C_START, source, block_bytes);
        break;
    case WAY_COUNT:
        break;
    }
    return sums[0];
}

/* Seconds a byte. */
static double measure(enum way way, const struct workload *workload, uint8_t *destination,
                      const uint8_t *source)
{
    static volatile uint32_t sink;
    size_t to = 0;
    size_t from = 0;
    double begin_s = now_s();

    for (size_t done = 0; done < ROUND_BYTES; done += workload->block_bytes) {
        sink ^= copy_block(way, destination + to, source + from, workload->block_bytes);
        to = to + 2 * workload->block_bytes <= workload->destination_bytes ? to + workload->block_bytes : 0;
        from = from + 2 * workload->block_bytes <= workload->source_bytes ? from + workload->block_bytes : 0;
    }
    return (now_s() - begin_s) / (double)ROUND_BYTES;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_result(const struct workload *workload, const double medians_s[WAY_COUNT], bool as_json)
{
    if (as_json)
        printf("{\"case\": \"crc_copy/%s\", \"implementation\": \"%s\"", workload->name,
               fb_crc32c_implementation());
    else
        printf("%-10s", workload->name);
    for (int way = 0; way < WAY_COUNT; way++) {
        double gib_s = 1.0 / medians_s[way] / (1 << 30);
        double ratio = medians_s[PLAIN] / medians_s[way];
        if (as_json)
            printf(", \"%s_gib_s\": %.3f, \"%s_ratio\": %.3f", way_names[way], gib_s, way_names[way], ratio);
        else
            printf("  %s %.1f GiB/s (%.2f)", way_names[way], gib_s, ratio);
    }
    printf(as_json ? "}\n" : "\n");
}

int main(int argc, char **argv)
{
    bool as_json = argc > 1 && strcmp(argv[1], "--json") == 0;
    uint8_t *destination = allocate(FAR_BYTES);
    uint8_t *source = allocate(SOURCE_BYTES);
    memset(destination, 1, FAR_BYTES);
    memset(source, 7, SOURCE_BYTES);
    if (!as_json)
        printf("copying with CRC-32C (%s); in brackets the ratio to memcpy\n", fb_crc32c_implementation());

    for (size_t i = 0; i < sizeof workloads / sizeof workloads[0]; i++) {
        double rounds_s[WAY_COUNT][ROUND_COUNT];
        double medians_s[WAY_COUNT];
        for (int round = 0; round < ROUND_COUNT; round++) {
            for (int way = 0; way < WAY_COUNT; way++)
                rounds_s[way][round] = measure((enum way)way, &workloads[i], destination, source);
        }
        for (int way = 0; way < WAY_COUNT; way++) {
            qsort(rounds_s[way], ROUND_COUNT, sizeof(double), compare_doubles);
            medians_s[way] = rounds_s[way][ROUND_COUNT / 2];
        }
        print_result(&workloads[i], medians_s, as_json);
    }
    return EXIT_SUCCESS;
}
