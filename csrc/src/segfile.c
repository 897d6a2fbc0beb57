#include "segfile.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "failpoint.h"
#include "health.h"
#include "platform.h"
#include "segment.h"
#include "tiers.h"

/* Mapping a segment costs as much as its copies save in ten uses; until then it is written by pwrite. */
#define MAP_AFTER_REUSES 2u
#define ALIGN_UP(n, to) (((n) + (to) - 1) & ~((uint64_t)(to) - 1))

uint64_t fb_whole_file_bytes(uint64_t size_bytes, uint32_t block_bytes)
{
    uint64_t chunks = fb_chunk_count(size_bytes);
    uint64_t blocks = (size_bytes + block_bytes - 1) / block_bytes;
    return ALIGN_UP(ALIGN_UP(size_bytes, 4096) + chunks * 4 + blocks * FB_RECORD_BYTES, 4096) +
           FB_SEGMENT_SUPER_BYTES;
}

struct fb_geometry fb_geometry_of_whole(fb_store *s, uint32_t segment)
{
    uint64_t whole_bytes = atomic_load(&s->segments[segment].whole_bytes);
    uint32_t block_bytes = atomic_load(&s->segments[segment].whole_block_bytes);
    uint64_t file_bytes = fb_whole_file_bytes(whole_bytes, block_bytes ? block_bytes : FB_CHUNK_BYTES);
    uint64_t super_offset = file_bytes - FB_SEGMENT_SUPER_BYTES;
    return (struct fb_geometry){.file_bytes = file_bytes,
                                .super_offset = super_offset,
                                .table_end = super_offset,
                                .crc_begin = ALIGN_UP(whole_bytes, 4096),
                                .unit_shift = FB_WHOLE_UNIT_SHIFT,
                                .whole = true};
}

void fb_segfile_name(fb_store *s, uint32_t segment, char out[32])
{
    struct fb_tier_saved *tier = fb_tier_of(s, segment);
    if (segment >= tier->whole_base)
        snprintf(out, 32, "whole-%06u", segment - tier->whole_base);
    else
        snprintf(out, 32, "seg-%06u", segment - tier->segment_base);
}

static int open_segment(fb_store *s, uint32_t segment, int flags)
{
    char name[32];
    int directory = fb_tier_directory(s, s->segment_tier[segment]);
    if (directory < 0)
        return -ENOENT;
    fb_segfile_name(s, segment, name);
    int fd = fb_open_regular(directory, name, flags, (mode_t)s->config.file_mode);
    /* In the directory of before: the file may well be in the tier's present one. */
    return fd == -ENOENT && fb_tier_is_outdated(s, s->segment_tier[segment]) ? -EACCES : fd;
}

/* ---- maps ---- */

/* Reader: lease, then load the pointer. Here: clear the pointer, then look at the leases. One of the
 * two sees the other. */
static bool unmap(fb_store *s, uint32_t segment)
{
    struct fb_map *map = &s->maps[segment];
    uint8_t *base = atomic_exchange(&map->base, NULL);
    if (base == NULL)
        return false;
    fb_fence();
    if (s->row_leases != NULL && atomic_load(&s->row_leases[segment]) > 0) {
        atomic_store(&map->base, base);
        return false;
    }
    munmap(base, map->base_bytes);
    s->maps_count--;
    return true;
}

static void make_room_for_map(fb_store *s)
{
    for (uint32_t tried = 0; s->maps_count >= s->maps_max && tried < s->segment_count; tried++) {
        unmap(s, s->maps_hand);
        s->maps_hand = (s->maps_hand + 1) % s->segment_count;
    }
}

/* A pointer of an older file epoch may still be under a view's lease of ours only when that lease was
 * for the older file; such a file is not removed while leased, so here it is stale and unused. */
static const uint8_t *map_segment(fb_store *s, uint32_t segment)
{
    struct fb_map *map = &s->maps[segment];
    struct fb_geometry g = fb_geometry_of(s, segment);
    uint32_t epoch = atomic_load(&s->segments[segment].file_epoch);
    uint8_t *base = atomic_load(&map->base);
    if (base != NULL && atomic_load(&map->base_epoch) == epoch)
        return base;
    if (base != NULL) {
        atomic_store(&map->base, NULL);
        munmap(base, map->base_bytes);
        s->maps_count--;
    }
    make_room_for_map(s);
    int fd = open_segment(s, segment, O_RDONLY);
    if (fd < 0)
        return NULL;
    struct stat st;
    void *fresh = MAP_FAILED;
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_size >= g.file_bytes)
        fresh = mmap(NULL, g.file_bytes, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (fresh == MAP_FAILED)
        return NULL;
    map->base_bytes = g.file_bytes;
    atomic_store(&map->base_epoch, epoch);
    atomic_store(&map->base, (uint8_t *)fresh);
    s->maps_count++;
    return fresh;
}

const uint8_t *fb_map_base(fb_store *s, uint32_t segment)
{
    const uint8_t *base = fb_map_current(s, segment);
    if (base != NULL)
        return base;
    pthread_mutex_lock(&s->maps_lock);
    const uint8_t *mapped = map_segment(s, segment);
    pthread_mutex_unlock(&s->maps_lock);
    return mapped;
}

uint8_t *fb_map_writable(fb_store *s, uint32_t segment)
{
    struct fb_map *map = &s->maps[segment];
    struct fb_segment *seg = &s->segments[segment];
    bool fresh_map = false;
    if (fb_tier_of(s, segment)->medium != FB_MEM || !(atomic_load(&seg->flags) & FB_SEG_RECYCLED))
        return NULL;
    /* The caller's lease keeps the file, so a map of its epoch stays; the pointer is read again for the
     * same reason as in fb_map_current. */
    uint32_t epoch = atomic_load(&seg->file_epoch);
    uint8_t *present = atomic_load(&map->writable);
    if (present != NULL && atomic_load(&map->writable_epoch) == epoch &&
        present == atomic_load(&map->writable))
        return present;
    pthread_mutex_lock(&s->maps_lock);
    present = atomic_load(&map->writable);
    if (present != NULL && atomic_load(&map->writable_epoch) != epoch) {
        atomic_store(&map->writable, NULL);
        munmap(present, map->writable_bytes);
        s->writable_count--;
    }
    uint32_t generation = atomic_load(&seg->generation);
    map->reuses += map->reuse_generation != generation;
    map->reuse_generation = generation;
    if (atomic_load(&map->writable) == NULL && map->reuses > MAP_AFTER_REUSES &&
        s->writable_count < s->maps_max) {
        struct fb_geometry g = fb_geometry_of(s, segment);
        int fd = open_segment(s, segment, O_RDWR);
        struct stat st;
        if (fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size >= g.file_bytes) {
            void *fresh = mmap(NULL, g.file_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (fresh != MAP_FAILED) {
                map->writable_bytes = g.file_bytes;
                atomic_store(&map->writable_epoch, epoch);
                atomic_store(&map->writable, (uint8_t *)fresh);
                s->writable_count++;
                fresh_map = true;
            }
        }
        if (fd >= 0)
            close(fd);
    }
    uint8_t *writable = atomic_load(&map->writable);
    uint64_t bytes = map->writable_bytes;
    pthread_mutex_unlock(&s->maps_lock);
    /* All pages exist; faulting them in one by one while copying would cost ten times as much. */
    if (fresh_map)
        madvise(writable, bytes, MADV_POPULATE_WRITE);
    return writable;
}

/* ---- descriptors ---- */

static void close_descriptor(fb_store *s, struct fb_map *map)
{
    close(map->descriptor);
    map->descriptor = -1;
    s->descriptors_count--;
}

static void hold_descriptor(fb_store *s, struct fb_map *map, int fd, uint32_t epoch)
{
    map->descriptor = fd;
    map->descriptor_epoch = epoch;
    s->descriptors_count++;
}

static void close_idle_descriptors(fb_store *s)
{
    for (uint32_t tried = 0; s->descriptors_count >= s->descriptors_max && tried < s->segment_count;
         tried++) {
        struct fb_map *map = &s->maps[s->descriptors_hand];
        s->descriptors_hand = (s->descriptors_hand + 1) % s->segment_count;
        if (map->descriptor >= 0 && map->descriptor_users == 0)
            close_descriptor(s, map);
    }
}

int fb_descriptor_get(fb_store *s, uint32_t segment)
{
    struct fb_map *map = &s->maps[segment];
    uint32_t epoch = atomic_load(&s->segments[segment].file_epoch);
    pthread_mutex_lock(&s->maps_lock);
    if (map->descriptor >= 0 && map->descriptor_epoch != epoch && map->descriptor_users == 0)
        close_descriptor(s, map);
    int fd = map->descriptor;
    if (fd >= 0 && map->descriptor_epoch != epoch) {
        /* Somebody still uses the descriptor of the file before: this one is for this call only. */
        fd = open_segment(s, segment, s->read_only ? O_RDONLY : O_RDWR);
        pthread_mutex_unlock(&s->maps_lock);
        return fd;
    }
    if (fd < 0) {
        close_idle_descriptors(s);
        fd = open_segment(s, segment, s->read_only ? O_RDONLY : O_RDWR);
        if (fd >= 0)
            hold_descriptor(s, map, fd, epoch);
    }
    if (fd >= 0)
        map->descriptor_users++;
    pthread_mutex_unlock(&s->maps_lock);
    return fd;
}

void fb_descriptor_put(fb_store *s, uint32_t segment, int fd)
{
    pthread_mutex_lock(&s->maps_lock);
    if (fd == s->maps[segment].descriptor)
        s->maps[segment].descriptor_users--;
    else
        close(fd);
    pthread_mutex_unlock(&s->maps_lock);
}

/* Of a file just made, which is about to be written. */
static void keep_descriptor(fb_store *s, uint32_t segment, int fd)
{
    struct fb_map *map = &s->maps[segment];
    pthread_mutex_lock(&s->maps_lock);
    if (map->descriptor >= 0 && map->descriptor_users == 0)
        close_descriptor(s, map);
    if (map->descriptor < 0) {
        close_idle_descriptors(s);
        hold_descriptor(s, map, fd, atomic_load(&s->segments[segment].file_epoch));
    } else {
        close(fd);
    }
    pthread_mutex_unlock(&s->maps_lock);
}

int fb_segment_pread(fb_store *s, uint32_t segment, void *data, size_t length_bytes, uint64_t offset)
{
    int fd = fb_descriptor_get(s, segment);
    if (fd < 0)
        return fd;
    int r = fb_pread_all(fd, data, length_bytes, offset);
    fb_descriptor_put(s, segment, fd);
    return r;
}

int fb_segment_write(fb_store *s, uint32_t segment, const void *data, size_t length_bytes, uint64_t offset)
{
    uint8_t *writable = fb_map_writable(s, segment);
    if (writable != NULL) {
        memcpy(writable + offset, data, length_bytes);
        return 0;
    }
    int fd = fb_descriptor_get(s, segment);
    if (fd < 0)
        return fd;
    int r = fb_pwrite_all(fd, data, length_bytes, offset);
    fb_descriptor_put(s, segment, fd);
    return r;
}

/* ---- files ---- */

int fb_segfile_create(fb_store *s, uint32_t segment)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    struct fb_tier_saved *tier = fb_tier_of(s, segment);
    char name[32];
    int directory = fb_tier_directory(s, s->segment_tier[segment]);
    fb_segfile_name(s, segment, name);
    unlinkat(directory, name, 0);
    int fd = openat(directory, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, s->config.file_mode);
    if (fd < 0)
        return -errno;
    FB_POINT("segment.created");
    int r = ftruncate(fd, (off_t)g.file_bytes) == 0 ? 0 : -errno;
    /* tmpfs pages come with the first write: reserving them first would clear each page in vain. */
    if (r == 0 && tier->medium != FB_MEM) {
        r = fb_reserve_bytes(fd, 0, g.file_bytes);
        if (r == -EOPNOTSUPP)
            r = 0;
    }
    if (r == 0 && s->config.group_id >= 0 && fchown(fd, (uid_t)-1, (gid_t)s->config.group_id) != 0)
        r = -errno;
    if (r == 0 && fchmod(fd, (mode_t)s->config.file_mode) != 0)
        r = -errno;
    if (r != 0) {
        close(fd);
        unlinkat(directory, name, 0);
        return r;
    }
    atomic_fetch_add(&s->segments[segment].file_epoch, 1);
    keep_descriptor(s, segment, fd);
    return 0;
}

void fb_segfile_remove(fb_store *s, uint32_t segment)
{
    char name[32];
    /* From here on nobody takes an old map or descriptor for the file of that number. */
    atomic_fetch_add(&s->segments[segment].file_epoch, 1);
    atomic_fetch_and(&s->segments[segment].flags, ~(uint32_t)FB_SEG_RECYCLED);
    int fd = open_segment(s, segment, O_RDWR);
    /* Other processes may have it mapped and would keep its pages: take those away first. Nobody reads a
     * map without a lease, and this segment has none. */
    if (fd >= 0) {
        if (ftruncate(fd, 0) != 0)
            fb_tier_fault(s, s->segment_tier[segment], errno);
        close(fd);
    }
    fb_segfile_name(s, segment, name);
    unlinkat(fb_tier_directory(s, s->segment_tier[segment]), name, 0);
}

int fb_segfile_write_super(fb_store *s, uint32_t segment, uint32_t dataset_id, uint32_t whole_sum)
{
    struct fb_geometry g = fb_geometry_of(s, segment);
    struct fb_segment *seg = &s->segments[segment];
    struct fb_tier_saved *tier = fb_tier_of(s, segment);
    struct fb_segment_super super = {
        .magic = FB_SEGMENT_MAGIC,
        .format = FB_FORMAT,
        .generation = atomic_load(&seg->generation),
        .tier_number = s->segment_tier[segment],
        .local_number = g.whole ? segment - tier->whole_base : segment - tier->segment_base,
        .dataset_id = dataset_id,
        .whole_block_bytes = atomic_load(&seg->whole_block_bytes),
        .file_bytes = g.file_bytes,
        .whole_bytes = atomic_load(&seg->whole_bytes),
        .whole_key = {.lo = atomic_load(&seg->whole_lo), .check = atomic_load(&seg->whole_check)},
        .whole_sum = whole_sum,
    };
    memcpy(super.store_id, s->super->store_id, sizeof super.store_id);
    super.crc = fb_crc32c(0, &super, offsetof(struct fb_segment_super, crc));
    return fb_segment_write(s, segment, &super, sizeof super, g.super_offset);
}

int fb_segfile_read_super(fb_store *s, uint32_t segment, struct fb_segment_super *out)
{
    struct fb_tier_saved *tier = fb_tier_of(s, segment);
    bool whole = fb_segment_is_whole(s, segment);
    struct stat st;
    struct fb_segment_super super;
    int fd = open_segment(s, segment, O_RDONLY);
    if (fd < 0)
        return fd;
    int r = fstat(fd, &st) == 0 ? 0 : -errno;
    uint64_t bytes = r == 0 ? (uint64_t)st.st_size : 0;
    if (r == 0 && (bytes < FB_SEGMENT_SUPER_BYTES || (!whole && bytes != tier->segment_bytes)))
        r = -EBADMSG;
    if (r == 0)
        r = fb_pread_all(fd, &super, sizeof super, whole ? bytes - FB_SEGMENT_SUPER_BYTES : 0);
    close(fd);
    if (r != 0)
        return r;
    uint32_t local = whole ? segment - tier->whole_base : segment - tier->segment_base;
    if (super.magic != FB_SEGMENT_MAGIC || super.format != FB_FORMAT || super.file_bytes != bytes ||
        super.crc != fb_crc32c(0, &super, offsetof(struct fb_segment_super, crc)) ||
        super.local_number != local || super.tier_number != s->segment_tier[segment] ||
        memcmp(super.store_id, s->super->store_id, sizeof super.store_id) != 0)
        return -EBADMSG;
    *out = super;
    return 0;
}

bool fb_segfile_is_there(fb_store *s, uint32_t segment)
{
    struct stat st;
    char name[32];
    fb_segfile_name(s, segment, name);
    return fstatat(fb_tier_directory(s, s->segment_tier[segment]), name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISREG(st.st_mode) && (uint64_t)st.st_size == fb_geometry_of(s, segment).file_bytes;
}

int fb_segfile_sync(fb_store *s, uint32_t segment)
{
    int fd = open_segment(s, segment, O_RDWR);
    if (fd < 0)
        return fd;
    int r = fdatasync(fd) == 0 ? 0 : -errno;
    close(fd);
    return r;
}

void fb_maps_close(fb_store *s)
{
    for (uint32_t i = 0; i < s->segment_count; i++) {
        struct fb_map *map = &s->maps[i];
        uint8_t *base = atomic_load(&map->base);
        if (base != NULL)
            munmap(base, map->base_bytes);
        uint8_t *writable = atomic_load(&map->writable);
        if (writable != NULL)
            munmap(writable, map->writable_bytes);
        if (map->descriptor >= 0)
            close(map->descriptor);
    }
}
