/* Memory cgroups of this process, version 1 and 2, with all their ancestors. */
#ifndef FB_CGROUP_H
#define FB_CGROUP_H

#include <stdint.h>

/* Bytes that may still be charged before the tightest limit, less a tenth of that limit; UINT64_MAX
 * where nothing limits. Pages that the kernel would drop first (inactive file cache) count as free. */
uint64_t fb_cgroup_room(void);

/* The same of a process whose groups stand in the file `list`, below the hierarchies mounted at `mount`. */
uint64_t fb_cgroup_room_of(const char *list, const char *mount);

#endif
