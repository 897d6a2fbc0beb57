/* Memory cgroups, read from a folder of the tests' own: version 1 and 2, ancestors, what is missing or odd.
 */
#include "cgroup.h"

#include <sys/stat.h>
#include <unistd.h>

#include "store_fixture.h"

#define LIMIT 1000000u
#define NO_LIMIT UINT64_MAX

struct tree {
    char root[64], list[96], mount[96];
};

static void begin(struct tree *t)
{
    *t = (struct tree){.root = "/tmp/forebay-cgroup-XXXXXX"};
    CHECK(mkdtemp(t->root) != NULL);
    snprintf(t->list, sizeof t->list, "%s/list", t->root);
    snprintf(t->mount, sizeof t->mount, "%s/mount", t->root);
    CHECK_EQ(mkdir(t->mount, 0700), 0);
}

static void end(struct tree *t)
{
    CHECK_EQ(fixture_remove_tree(t->root), 0);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    CHECK(file != NULL);
    CHECK_GE(fputs(text, file), 0);
    CHECK_EQ(fclose(file), 0);
}

/* Sets a file of a group, making the group's folders. */
static void set(const struct tree *t, const char *group, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", t->mount, group, name);
    for (char *slash = path + strlen(t->mount) + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
    write_file(path, text);
}

static uint64_t room(const struct tree *t, const char *list)
{
    write_file(t->list, list);
    return fb_cgroup_room_of(t->list, t->mount);
}

TEST(nothing_limits_where_nothing_is_said)
{
    struct tree t;
    begin(&t);
    CHECK_EQ(fb_cgroup_room_of("/nonexistent/list", t.mount), NO_LIMIT);
    CHECK_EQ(room(&t, ""), NO_LIMIT);
    CHECK_EQ(room(&t, "0::/a/b\n"), NO_LIMIT);
    CHECK_EQ(room(&t, "no colon at all\n7:only one\n\n::\n"), NO_LIMIT);
    set(&t, "a/b", "memory.max", "max\n");
    set(&t, "a/b", "memory.current", "5000\n");
    CHECK_EQ(room(&t, "0::/a/b\n"), NO_LIMIT);
    end(&t);
}

TEST(a_tenth_of_the_limit_stays_free)
{
    struct tree t;
    begin(&t);
    set(&t, "a", "memory.max", "1000000\n");
    set(&t, "a", "memory.current", "300000\n");
    CHECK_EQ(room(&t, "0::/a\n"), LIMIT * 9 / 10 - 300000);
    set(&t, "a", "memory.current", "900001\n");
    CHECK_EQ(room(&t, "0::/a\n"), 0);
    set(&t, "a", "memory.max", "0\n");
    CHECK_EQ(room(&t, "0::/a\n"), 0);
    end(&t);
}

TEST(what_the_kernel_drops_first_counts_as_free)
{
    struct tree t;
    begin(&t);
    set(&t, "a", "memory.max", "1000000\n");
    set(&t, "a", "memory.current", "800000\n");
    set(&t, "a", "memory.stat", "anon 100\nactive_file 77\ninactive_file 600000\nslab 9\n");
    CHECK_EQ(room(&t, "0::/a\n"), LIMIT * 9 / 10 - 200000);
    set(&t, "a", "memory.stat", "inactive_file 99999999\n"); /* more than is used */
    CHECK_EQ(room(&t, "0::/a\n"), LIMIT * 9 / 10);
    end(&t);
}

TEST(the_tightest_ancestor_decides)
{
    struct tree t;
    begin(&t);
    set(&t, "a/b/c", "memory.max", "max\n");
    set(&t, "a/b", "memory.max", "1000000\n");
    set(&t, "a/b", "memory.current", "100000\n");
    set(&t, "a", "memory.max", "2000000\n");
    set(&t, "a", "memory.current", "1600000\n");
    CHECK_EQ(room(&t, "0::/a/b/c\n"), 200000);
    set(&t, "a", "memory.current", "0\n");
    CHECK_EQ(room(&t, "0::/a/b/c\n"), 800000);
    CHECK_EQ(room(&t, "0::/a\n"), 1800000);
    CHECK_EQ(room(&t, "0::/elsewhere\n"), NO_LIMIT);
    end(&t);
}

/* In a container the list may name a path of the host; the mount's root is the container's own group. */
TEST(the_root_of_the_mount_counts_too)
{
    struct tree t;
    begin(&t);
    set(&t, ".", "memory.max", "1000000\n");
    set(&t, ".", "memory.current", "400000\n");
    CHECK_EQ(room(&t, "0::/\n"), 500000);
    CHECK_EQ(room(&t, "0::/docker/0123456789abcdef\n"), 500000);
    CHECK_EQ(room(&t, "0::/../../init.scope\n"), 500000);
    end(&t);
}

TEST(version_one_has_a_hierarchy_of_its_own)
{
    struct tree t;
    begin(&t);
    set(&t, "memory/job", "memory.limit_in_bytes", "1000000\n");
    set(&t, "memory/job", "memory.usage_in_bytes", "700000\n");
    set(&t, "memory/job", "memory.stat", "inactive_file 500000\ntotal_inactive_file 100000\n");
    CHECK_EQ(room(&t, "12:cpu,cpuacct:/other\n4:memory:/job\n1:name=systemd:/job\n"), 300000);
    CHECK_EQ(room(&t, "4:hugetlb,memory:/job/below\n0::/\n"), 300000);
    set(&t, "memory/job", "memory.limit_in_bytes", "9223372036854771712\n"); /* its word for none */
    CHECK_EQ(room(&t, "4:memory:/job\n"), NO_LIMIT);
    end(&t);
}

TEST(a_limit_without_a_usage_leaves_no_room)
{
    struct tree t;
    begin(&t);
    set(&t, "a", "memory.max", "1000000\n");
    CHECK_EQ(room(&t, "0::/a\n"), 0);
    set(&t, "a", "memory.current", "garbage\n");
    CHECK_EQ(room(&t, "0::/a\n"), 0);
    end(&t);
}

TEST(this_process_has_room)
{
    CHECK_GT(fb_cgroup_room(), 0);
}

CHECK_MAIN
