#include "change.h"

#include "account.h"
#include "clock.h"
#include "failpoint.h"
#include "page.h"
#include "write.h"

int fb_slot_lock(fb_store *s, const struct fb_key *key, uint32_t *page, uint32_t *slot)
{
    if (!s->has_row)
        return -EROFS;
    int r = fb_index_lock(s, key->lo, page);
    if (r != 0)
        return r;
    int found = fb_page_find(s, *page, key->lo, key->check);
    if (found < 0 ||
        FB_PLACE_STATE(atomic_load(&fb_page_at(s, *page)->slots[found].place)) != FB_SLOT_PRESENT) {
        fb_index_unlock(s, *page);
        return -ENOENT;
    }
    *slot = (uint32_t)found;
    return 0;
}

bool fb_is_expired(fb_store *s, uint64_t extent)
{
    uint32_t expiry = FB_EXTENT_EXPIRY(extent);
    return expiry != 0 && fb_now_s(s) >= expiry;
}

static int bury_ahead(fb_store *s, const struct fb_key *key)
{
    uint64_t old;
    /* What is not there now may still come back from a segment not scanned yet. */
    fb_index_put(s, key, FB_PLACE(FB_SLOT_TOMBSTONE, 0, 0, 0, 0, 0), 0, NULL, NULL, &old);
    return -ENOENT;
}

/* What fb_slot_lock found goes, is counted as this, and the page is unlocked. */
static void remove_locked(fb_store *s, const struct fb_key *key, uint32_t page, uint32_t slot,
                          enum fb_counter counter)
{
    uint64_t place = atomic_load(&fb_page_at(s, page)->slots[slot].place);
    uint32_t account = fb_account_of(fb_dataset_of(s, FB_PLACE_SEGMENT(place) % s->segment_count));
    fb_hold_old(s, place);
    fb_page_remove(s, page, slot);
    fb_index_unlock(s, page);
    FB_POINT("delete.unpublished");
    fb_bury(s, key, place);
    fb_count_in(s, account, counter, 1);
}

int fb_delete(fb_store *s, const struct fb_key *key)
{
    uint32_t page, slot;
    int r = fb_slot_lock(s, key, &page, &slot);
    if (r == -ENOENT && atomic_load(&s->shared->rebuilding))
        return bury_ahead(s, key);
    if (r != 0)
        return r;
    bool expired = fb_is_expired(s, atomic_load(&fb_page_at(s, page)->slots[slot].extent));
    remove_locked(s, key, page, slot, expired ? FB_C_EXPIRED : FB_C_DELETED);
    return expired ? -ENOENT : 0;
}

int fb_drop_expired(fb_store *s, const struct fb_key *key)
{
    uint32_t page, slot;
    int r = fb_slot_lock(s, key, &page, &slot);
    if (r != 0)
        return r;
    if (!fb_is_expired(s, atomic_load(&fb_page_at(s, page)->slots[slot].extent))) {
        fb_index_unlock(s, page);
        return -EAGAIN;
    }
    remove_locked(s, key, page, slot, FB_C_EXPIRED);
    return 0;
}

int fb_expire(fb_store *s, const struct fb_key *key, double ttl_s)
{
    uint32_t page, slot, expiry = fb_expiry_of(s, ttl_s);
    int r = fb_slot_lock(s, key, &page, &slot);
    if (r != 0)
        return r;
    struct fb_slot *target = &fb_page_at(s, page)->slots[slot];
    uint64_t place = atomic_load(&target->place), extent = atomic_load(&target->extent);
    struct fb_record record;
    uint32_t number = FB_NO_SEGMENT;
    if (!(FB_PLACE_FLAGS(place) & FB_SLOT_WHOLE) && !fb_is_expired(s, extent)) {
        fb_page_set(s, page, slot, place, FB_EXTENT(FB_EXTENT_LENGTH(extent), expiry));
        number = fb_record_of_place(s, place, key->lo, key->check, &record);
    } else {
        r = -ENOENT;
    }
    if (number != FB_NO_SEGMENT) {
        record.expiry = expiry;
        fb_record_write(s, FB_PLACE_SEGMENT(place), number, &record);
    }
    fb_index_unlock(s, page);
    if (r == 0 && expiry != 0)
        atomic_store(&s->shared->any_expiry, 1);
    return r;
}

int fb_set_retention(fb_store *s, uint32_t dataset_id, uint32_t retention)
{
    uint32_t dataset = s->has_row ? fb_dataset_slot(s, dataset_id, true) : FB_DATASETS_MAX;
    if (dataset == FB_DATASETS_MAX || retention > FB_SPARE)
        return s->has_row ? -EINVAL : -EROFS;
    atomic_store(&s->datasets[dataset].retention, retention);
    return 0;
}
