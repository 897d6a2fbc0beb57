#include "cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNLIMITED (UINT64_MAX / 4)

struct names {
    const char *limit, *usage, *inactive;
};

static const struct names version_1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                       "total_inactive_file "};
static const struct names version_2 = {"memory.max", "memory.current", "inactive_file "};

static uint64_t read_number(const char *folder, const char *name, uint64_t otherwise)
{
    char path[1200], text[64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return otherwise;
    uint64_t value = otherwise;
    if (fgets(text, sizeof text, file) != NULL && text[0] >= '0' && text[0] <= '9')
        value = strtoull(text, NULL, 10);
    fclose(file);
    return value;
}

static uint64_t read_stat(const char *folder, const char *key)
{
    char path[1200], line[256];
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    FILE *file = fopen(path, "re");
    uint64_t value = 0;
    if (file == NULL)
        return 0;
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key), NULL, 10);
    fclose(file);
    return value;
}

static uint64_t room_in(const char *folder, const struct names *names)
{
    uint64_t limit = read_number(folder, names->limit, UINT64_MAX);
    if (limit >= UNLIMITED)
        return UINT64_MAX;
    uint64_t usage = read_number(folder, names->usage, limit);
    uint64_t inactive = read_stat(folder, names->inactive);
    usage = usage > inactive ? usage - inactive : 0;
    uint64_t ceiling = limit - limit / 10;
    return usage < ceiling ? ceiling - usage : 0;
}

/* From the process's own group up to the mount. In a container the path may not exist below the mount
 * point; its root then stands for the container's own group. */
static uint64_t room_above(const char *mount, char *path, const struct names *names)
{
    char folder[1100];
    uint64_t room = UINT64_MAX;
    for (;;) {
        snprintf(folder, sizeof folder, "%s%s", mount, strcmp(path, "/") == 0 ? "" : path);
        uint64_t here = room_in(folder, names);
        room = here < room ? here : room;
        char *slash = strrchr(path, '/');
        if (slash == NULL || path[0] == 0)
            return room;
        *slash = 0;
    }
}

uint64_t fb_cgroup_room_of(const char *list, const char *mount)
{
    char line[1024], memory[1024];
    uint64_t room = UINT64_MAX;
    FILE *file = fopen(list, "re");
    if (file == NULL)
        return room;
    snprintf(memory, sizeof memory, "%s/memory", mount);
    while (fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *controllers = strchr(line, ':');
        char *path = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
        if (path == NULL)
            continue;
        *path++ = 0;
        controllers++;
        uint64_t here = UINT64_MAX;
        if (controllers[0] == 0)
            here = room_above(mount, path, &version_2);
        else if (strstr(controllers, "memory") != NULL)
            here = room_above(memory, path, &version_1);
        room = here < room ? here : room;
    }
    fclose(file);
    return room;
}

uint64_t fb_cgroup_room(void)
{
    return fb_cgroup_room_of("/proc/self/cgroup", "/sys/fs/cgroup");
}
