#include "geometry.h"

#include <stddef.h>

#include "platform.h"
#include "rows.h"

#define MIB (1ull << 20)
#define SEGMENT_SMALLEST MIB
#define SEGMENT_LARGEST (256 * MIB)
#define SEGMENTS_AIMED_AT 512u /* a tier */
#define SEGMENTS_AT_LEAST 16u  /* rather than a segment too small for one block */
#define TIER_SMALLEST (4 * MIB)
#define SEGMENTS_MAX 65535u
#define WHOLE_MAX 512u
#define BLOCK_BYTES_EXPECTED 1024u /* sets how far the index may grow */
#define BLOCKS_AT_LEAST (2u << 20)
#define BLOCKS_MAX (1ull << 30)

static uint64_t power_of_two_below(uint64_t n)
{
    uint64_t power = 1;
    while (power * 2 <= n)
        power *= 2;
    return power;
}

static uint64_t clamp(uint64_t n, uint64_t least, uint64_t most)
{
    return n < least ? least : n > most ? most : n;
}

/* Data of a power of two, and room behind it for the superblock, the table and the checksums of large
 * records, so that a segment of 8 MiB takes two blocks of 4 MiB. */
static uint64_t segment_bytes_for(uint64_t quota_bytes, uint32_t block_bytes)
{
    uint64_t aimed = power_of_two_below(quota_bytes / SEGMENTS_AIMED_AT);
    uint64_t for_a_block = power_of_two_below(quota_bytes / SEGMENTS_AT_LEAST);
    if (for_a_block > block_bytes)
        for_a_block = block_bytes;
    uint64_t data = clamp(aimed > for_a_block ? aimed : for_a_block, SEGMENT_SMALLEST, SEGMENT_LARGEST);
    return data + data / 512 + 3 * 4096;
}

static int plan_tier(const struct fb_config *config, uint32_t i, struct fb_index_super *super, uint32_t *next,
                     struct fb_error *error)
{
    const struct fb_tier_config *from = &config->tiers[i];
    struct fb_tier_saved *tier = &super->tiers[i];
    if (from->quota_bytes < TIER_SMALLEST)
        return fb_fail(error, -EINVAL, "tier %s: quota of %llu bytes is below the smallest, 4 MiB",
                       from->path, (unsigned long long)from->quota_bytes);
    if (from->low_permille > from->high_permille || from->high_permille > 1000)
        return fb_fail(error, -EINVAL, "tier %s: watermarks must be low <= high <= 1", from->path);
    memcpy(tier->path, from->path, sizeof tier->path);
    tier->quota_bytes = from->quota_bytes;
    tier->medium = from->medium;
    tier->high_permille = from->high_permille;
    tier->low_permille = from->low_permille;
    tier->segment_bytes = segment_bytes_for(from->quota_bytes, super->block_bytes);
    uint64_t count = from->quota_bytes / tier->segment_bytes, whole = count < WHOLE_MAX ? count : WHOLE_MAX;
    if (*next + count + whole > SEGMENTS_MAX)
        return fb_fail(error, -EINVAL, "tier %s: more than %u segments in all tiers; its quota is too large",
                       from->path, SEGMENTS_MAX);
    tier->segment_base = *next;
    tier->segment_count = (uint32_t)count;
    tier->whole_base = *next + (uint32_t)count;
    tier->whole_count = (uint32_t)whole;
    *next = tier->whole_base + tier->whole_count;
    tier->level = i == 0                                        ? 0
                  : from->medium == config->tiers[i - 1].medium ? super->tiers[i - 1].level
                                                                : super->tiers[i - 1].level + 1;
    return 0;
}

int fb_geometry_plan(const struct fb_config *config, struct fb_index_super *super, struct fb_error *error)
{
    uint64_t total = 0;
    uint32_t next = 0;
    if (config->tier_count == 0 || config->tier_count > FB_TIERS_MAX)
        return fb_fail(error, -EINVAL, "%s: %u tiers, must be 1 to %d", config->path, config->tier_count,
                       FB_TIERS_MAX);
    if (config->row_count < 2 || config->row_count > 4096)
        return fb_fail(error, -EINVAL, "%s: rows must be 2 to 4096, not %u", config->path, config->row_count);
    super->magic = FB_INDEX_MAGIC;
    super->format = FB_FORMAT;
    super->features = FB_FEATURES;
    super->row_count = config->row_count;
    super->tier_count = config->tier_count;
    super->block_bytes = config->block_bytes;
    for (uint32_t i = 0; i < config->tier_count; i++) {
        int r = plan_tier(config, i, super, &next, error);
        if (r != 0)
            return r;
        total += config->tiers[i].quota_bytes;
    }
    uint64_t blocks = clamp(total / BLOCK_BYTES_EXPECTED, BLOCKS_AT_LEAST, BLOCKS_MAX);
    super->segment_count = next;
    super->directory_bits = FB_PAGES_FIRST_BITS;
    while (((uint64_t)FB_INDEX_ROOTS << super->directory_bits) * FB_PAGE_SPLIT_AT < blocks * 2)
        super->directory_bits++;
    super->page_count_max = FB_INDEX_ROOTS << super->directory_bits;
    super->ghost_count = (uint32_t)power_of_two_below(clamp(total / 8192, 4096, 1u << 20));
    super->static_crc = fb_super_static_crc(super);
    return 0;
}

void fb_geometry_recall(const struct fb_index_super *super, struct fb_config *config)
{
    config->tier_count = super->tier_count;
    config->block_bytes = super->block_bytes;
    config->row_count = super->row_count;
    for (uint32_t i = 0; i < super->tier_count; i++) {
        struct fb_tier_config *tier = &config->tiers[i];
        memset(tier, 0, sizeof *tier);
        memcpy(tier->path, super->tiers[i].path, sizeof tier->path);
        tier->quota_bytes = super->tiers[i].quota_bytes;
        tier->medium = super->tiers[i].medium;
        tier->high_permille = super->tiers[i].high_permille;
        tier->low_permille = super->tiers[i].low_permille;
    }
}

int fb_geometry_compare(const struct fb_index_super *super, const struct fb_config *config,
                        struct fb_error *error)
{
    static const char *media[] = {"MEM", "SSD", "HDD"};
    if (config->tier_count != super->tier_count)
        return fb_fail(error, -EINVAL, "%s: opened with %u tiers, but it was made with %u", config->path,
                       config->tier_count, super->tier_count);
    for (uint32_t i = 0; i < super->tier_count; i++) {
        const struct fb_tier_config *given = &config->tiers[i];
        const struct fb_tier_saved *kept = &super->tiers[i];
        if (strncmp(given->path, kept->path, sizeof kept->path) != 0 ||
            given->quota_bytes != kept->quota_bytes || given->medium != kept->medium ||
            given->high_permille != kept->high_permille || given->low_permille != kept->low_permille)
            return fb_fail(
                error, -EINVAL,
                "%s: tier %u given as %s (%llu bytes, %s, %u/%u permille), but it was made as %s (%llu "
                "bytes, %s, %u/%u permille); open it without tiers to use those",
                config->path, i, given->path, (unsigned long long)given->quota_bytes,
                media[given->medium % 3], given->high_permille, given->low_permille, kept->path,
                (unsigned long long)kept->quota_bytes, media[kept->medium % 3], kept->high_permille,
                kept->low_permille);
    }
    return 0;
}

/* ---- live ---- */

struct section {
    uint64_t bytes, offset;
};

enum {
    ROWS,
    LEASES,
    DIRECTORY,
    METAS,
    SEGMENTS,
    DATASETS,
    FLIGHTS,
    PROMOTIONS,
    GHOSTS,
    QUICK,
    ACCOUNTS,
    SECTIONS
};

static uint64_t lay_out(const struct fb_index_super *super, struct section out[SECTIONS])
{
    const uint64_t bytes[SECTIONS] = {
        [ROWS] = (uint64_t)super->row_count * sizeof(struct fb_row),
        [LEASES] = (uint64_t)super->row_count * super->segment_count * 4,
        [DIRECTORY] = ((uint64_t)FB_INDEX_ROOTS << super->directory_bits) * 4,
        [METAS] = (uint64_t)super->page_count_max * sizeof(struct fb_page_meta),
        [SEGMENTS] = (uint64_t)super->segment_count * sizeof(struct fb_segment),
        [DATASETS] = (uint64_t)FB_DATASETS_MAX * sizeof(struct fb_dataset),
        [FLIGHTS] = (uint64_t)FB_FLIGHT_BUCKETS * sizeof(struct fb_flight_bucket),
        [PROMOTIONS] = (uint64_t)FB_PROMOTIONS * sizeof(struct fb_promotion),
        [GHOSTS] = (uint64_t)super->ghost_count * 2 * 4,
        [QUICK] = (uint64_t)super->row_count * FB_ACCOUNTS * sizeof(struct fb_quick),
        [ACCOUNTS] = (uint64_t)FB_ACCOUNT_SHARDS * FB_ACCOUNTS * sizeof(struct fb_account),
    };
    uint64_t offset = FB_LIVE_SUPER_BYTES;
    for (int i = 0; i < SECTIONS; i++) {
        out[i] = (struct section){bytes[i], offset};
        offset = (offset + bytes[i] + 4095) & ~4095ull;
    }
    return offset;
}

uint64_t fb_live_bytes(const struct fb_index_super *super)
{
    struct section sections[SECTIONS];
    return lay_out(super, sections);
}

uint64_t fb_live_map_bytes(const struct fb_index_super *super)
{
    return fb_live_bytes(super) + ((uint64_t)super->page_count_max + 64) * FB_TOUCH_PAGE_BYTES;
}

uint64_t fb_index_map_bytes(const struct fb_index_super *super)
{
    uint64_t table = ((uint64_t)super->segment_count * sizeof(struct fb_segment) + FB_PAGE_BYTES - 1) &
                     ~(uint64_t)(FB_PAGE_BYTES - 1);
    return FB_INDEX_SUPER_BYTES + table + ((uint64_t)super->page_count_max + 64) * FB_PAGE_BYTES;
}

void fb_live_lay_out(fb_store *s)
{
    struct section sections[SECTIONS];
    uint64_t touches = lay_out(s->super, sections);
    uint8_t *live = s->live;
    s->shared = (struct fb_live_super *)live;
    s->rows = (struct fb_row *)(live + sections[ROWS].offset);
    s->leases = (_Atomic uint32_t *)(live + sections[LEASES].offset);
    s->directory = (_Atomic uint32_t *)(live + sections[DIRECTORY].offset);
    s->metas = (struct fb_page_meta *)(live + sections[METAS].offset);
    s->segments = (struct fb_segment *)(live + sections[SEGMENTS].offset);
    s->datasets = (struct fb_dataset *)(live + sections[DATASETS].offset);
    s->flights = (struct fb_flight_bucket *)(live + sections[FLIGHTS].offset);
    s->promotions = (struct fb_promotion *)(live + sections[PROMOTIONS].offset);
    s->evicted_ghosts = (_Atomic uint32_t *)(live + sections[GHOSTS].offset);
    s->refused_ghosts = s->evicted_ghosts + s->super->ghost_count;
    s->quick_rows = (struct fb_quick *)(live + sections[QUICK].offset);
    s->account_shards = (struct fb_account *)(live + sections[ACCOUNTS].offset);
    s->touches = (_Atomic uint8_t *)(live + touches);
    s->segment_count = s->super->segment_count;
    s->directory_shift = 64 - s->super->directory_bits;
}

uint64_t fb_super_static_crc(const struct fb_index_super *super)
{
    return fb_crc32c(0, super, offsetof(struct fb_index_super, static_crc));
}

uint64_t fb_super_dynamic_crc(const struct fb_index_super *super)
{
    return fb_crc32c(0, super->boot_id,
                     offsetof(struct fb_index_super, dynamic_crc) - offsetof(struct fb_index_super, boot_id));
}
