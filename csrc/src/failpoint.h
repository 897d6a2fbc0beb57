/* Named places at which a test stops or kills the process: FOREBAY_FAILPOINT=name=kill@3 in the
 * environment (kill or stop, at the third passing). Off, a passing costs one predicted branch. */
#ifndef FB_FAILPOINT_H
#define FB_FAILPOINT_H

#include <stdatomic.h>

extern _Atomic int fb_failpoint_armed;
void fb_failpoint_load(void);
void fb_failpoint_hit(const char *name);

#define FB_POINT(name)                                                                                       \
    do {                                                                                                     \
        if (__builtin_expect(atomic_load_explicit(&fb_failpoint_armed, memory_order_relaxed), 0))            \
            fb_failpoint_hit(name);                                                                          \
    } while (0)

#endif
