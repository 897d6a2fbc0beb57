/* Sizes and counts that follow from the configuration, and where things lie in `live`. */
#ifndef FB_GEOMETRY_H
#define FB_GEOMETRY_H

#include "engine.h"

/* Fill the static part of a superblock from a checked configuration. -EINVAL with the reason. */
int fb_geometry_plan(const struct fb_config *config, struct fb_index_super *super, struct fb_error *error);

/* The configuration that a superblock remembers, tiers only. */
void fb_geometry_recall(const struct fb_index_super *super, struct fb_config *config);
/* 0, or -EINVAL naming the first difference between remembered and given tiers. */
int fb_geometry_compare(const struct fb_index_super *super, const struct fb_config *config,
                        struct fb_error *error);

uint64_t fb_live_bytes(const struct fb_index_super *super);     /* without touch bytes */
uint64_t fb_live_map_bytes(const struct fb_index_super *super); /* with all of them */
uint64_t fb_index_map_bytes(const struct fb_index_super *super);
/* Point the store's tables into its mapped files. */
void fb_live_lay_out(fb_store *s);

uint64_t fb_super_static_crc(const struct fb_index_super *super);
uint64_t fb_super_dynamic_crc(const struct fb_index_super *super);

#endif
