/* Rebuilding the index from record tables, in the background, reads served meanwhile. */
#ifndef FB_REBUILD_H
#define FB_REBUILD_H

#include "engine.h"

/* Mark every segment file that lies in the tiers as to be scanned. The caller holds open.lock alone. */
void fb_rebuild_begin(fb_store *s);
/* Scan some; true while there are more. */
bool fb_rebuild_some(fb_store *s);
/* Remove the slots of segments whose files are gone or cut short. The caller holds open.lock alone. */
void fb_drop_lost_segments(fb_store *s);

/* Give up a segment that is UNSCANNED and owned by the caller: it is not ours, or no use to anybody. If a
 * scan of it was cut short there may be slots, and readers, who keep it HELD. False: not now. */
bool fb_segment_discard(fb_store *s, uint32_t segment);

#endif
