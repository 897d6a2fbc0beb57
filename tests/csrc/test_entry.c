/* Packed entries: whatever is packed comes back, and what is common takes few bytes. */
#include "forebay/entry.h"

#include <inttypes.h>

#include "check.h"

static struct fb_entry entry_of(const char *version)
{
    struct fb_entry entry = {.size_bytes = 102400,
                             .mtime_ns = 1732742493123456789,
                             .checked_ns = 123456789012345,
                             .inode = 1234567,
                             .version_bytes = (uint32_t)strlen(version)};
    CHECK_LE(strlen(version), FB_VERSION_BYTES_MAX);
    memcpy(entry.version, version, strlen(version));
    return entry;
}

/* Packs into a buffer of exactly the row's length, so that a sanitizer sees what is read behind it. */
static uint32_t check_comes_back(const struct fb_entry *entry)
{
    uint8_t row[FB_ENTRY_ROW_BYTES_MAX];
    struct fb_entry back;
    memset(&back, 0xa5, sizeof back);
    uint32_t length = fb_entry_pack(entry, row);
    CHECK(length >= 1 && length <= FB_ENTRY_ROW_BYTES_MAX);
    uint8_t *exact = malloc(length);
    CHECK(exact != NULL);
    memcpy(exact, row, length);
    fb_entry_unpack(exact, length, &back);
    free(exact);
    CHECK_EQ(back.size_bytes, entry->size_bytes);
    CHECK_EQ(back.mtime_ns, entry->mtime_ns);
    CHECK_EQ(back.checked_ns, entry->checked_ns);
    CHECK_EQ(back.inode, entry->inode);
    CHECK_EQ(back.is_dir, entry->is_dir);
    CHECK_EQ(back.version_bytes, entry->version_bytes);
    CHECK_EQ(memcmp(back.version, entry->version, entry->version_bytes), 0);
    return length;
}

static uint32_t length_with(const char *version)
{
    struct fb_entry entry = entry_of(version);
    return check_comes_back(&entry);
}

TEST(versions_of_every_form_come_back)
{
    static const char *const versions[] = {
        "",
        "v",
        "0123456789abcdef0123456789abcdef",
        "0123456789abcdef0123456789abcdef-3",
        "0123456789abcdef0123456789abcdef-10000~",
        "0123456789ABCDEF0123456789ABCDEF",
        "0123456789abcdef0123456789abcde",
        "1732742493123456789-1732742493223456789-1234567-102400",
        "0",
        "0-0",
        "00",
        "01-2",
        "-1",
        "1-",
        "1--2",
        "1-2~",
        "18446744073709551615-102400",
        "18446744073709551616-102400",
        "99999999999999999999999999",
        "\"quoted\"",
        "\xc3\xa9\xff",
    };
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++)
        length_with(versions[i]);
}

TEST(the_longest_versions_come_back)
{
    struct fb_entry entry = entry_of("");
    entry.size_bytes = entry.checked_ns = entry.inode = UINT64_MAX;
    entry.mtime_ns = INT64_MIN;
    entry.version_bytes = FB_VERSION_BYTES_MAX;
    static const char fillings[] = "x7a0";
    for (const char *filling = fillings; *filling != 0; filling++) {
        memset(entry.version, *filling, FB_VERSION_BYTES_MAX);
        check_comes_back(&entry);
    }
    /* Most bytes a digit: numbers of one. */
    for (uint32_t i = 1; i < FB_VERSION_BYTES_MAX; i += 2)
        entry.version[i] = '-';
    entry.version[FB_VERSION_BYTES_MAX - 1] = '1';
    check_comes_back(&entry);
    for (uint32_t i = 0; i < FB_VERSION_BYTES_MAX; i += 2)
        entry.version[i] = '7';
    check_comes_back(&entry);
}

TEST(figures_of_every_length_come_back)
{
    struct fb_entry entry = entry_of("v");
    for (int bit = 0; bit < 64; bit++) {
        uint64_t number = UINT64_C(1) << bit;
        entry.size_bytes = number;
        entry.checked_ns = number - 1;
        entry.inode = ~number;
        entry.mtime_ns = (int64_t)number;
        check_comes_back(&entry);
        entry.mtime_ns = (int64_t)~number;
        entry.is_dir = !entry.is_dir;
        check_comes_back(&entry);
    }
    memset(&entry, 0, sizeof entry);
    check_comes_back(&entry);
}

TEST(a_number_of_the_version_may_repeat_the_size_or_the_mtime)
{
    static const int64_t times[] = {0, 1, -1, INT64_MIN, INT64_MAX, 1732742493123456789};
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        for (uint64_t size = 0; size < 3; size++) {
            struct fb_entry entry = entry_of("");
            entry.mtime_ns = times[i];
            entry.size_bytes = size;
            entry.version_bytes = (uint32_t)snprintf(entry.version, sizeof entry.version,
                                                     "%" PRIu64 "-%" PRIu64 "-1-0-%" PRIu64, size,
                                                     (uint64_t)times[i], (uint64_t)times[i] + 1);
            check_comes_back(&entry);
        }
    }
}

/* Figures of 3, 8, 6 and 3 bytes and the three that say so: 23. */
TEST(what_is_common_takes_few_bytes)
{
    CHECK_EQ(length_with(""), 23);
    CHECK_EQ(length_with("0123456789abcdef0123456789abcdef"), 23 + 16);
    CHECK_EQ(length_with("0123456789abcdef0123456789abcdef-12"), 23 + 16 + 3);
    CHECK_EQ(length_with("1732742493123456789-1732742493223456789-1234567-102400"), 23 + 1 + 9 + 4 + 1);
    CHECK_EQ(length_with("CKih16GjycICEAE="), 23 + 16);
}

CHECK_MAIN
