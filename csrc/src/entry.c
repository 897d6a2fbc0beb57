/* Entries in few bytes; see forebay/entry.h.
 *
 *     byte 0      flags: a directory; the form of the version
 *     bytes 1, 2  how many bytes size, mtime, time of the check and inode take, four bits each
 *     then these  little-endian; mtime zigzag, so that early times before 1970 are short as well
 *     the rest    the version in its form
 */
#include "forebay/entry.h"

#include <string.h>

#define IS_DIR 0x01u
#define FORM_SHIFT 1

enum form { TEXT, DIGEST, NUMBERS };

#define NUMBERS_AT 3u
#define DIGEST_BYTES 16u
#define DIGEST_DIGITS (2 * DIGEST_BYTES)

/* What stands before each number of a version: how many bytes it takes, or that it repeats one of the
 * entry's. */
#define IS_SIZE 9u
#define IS_MTIME 10u

/* A number takes a byte more than it has digits at the most, and there is a '-' for all but the first. */
_Static_assert(NUMBERS_AT + 4 * 8 + FB_VERSION_BYTES_MAX + 1 <= FB_ENTRY_ROW_BYTES_MAX, "a row fits");

static uint32_t bytes_of(uint64_t number)
{
    return number == 0 ? 0 : 8 - (uint32_t)__builtin_clzll(number) / 8;
}

static uint32_t put_number(uint8_t *out, uint64_t number)
{
    uint32_t length = bytes_of(number);
    for (uint32_t i = 0; i < length; i++)
        out[i] = (uint8_t)(number >> (8 * i));
    return length;
}

static uint64_t take_number(const uint8_t *from, uint32_t length)
{
    uint64_t number = 0;
    for (uint32_t i = 0; i < length; i++)
        number |= (uint64_t)from[i] << (8 * i);
    return number;
}

static uint64_t zigzag(int64_t number)
{
    return (uint64_t)number << 1 ^ (number < 0 ? UINT64_MAX : 0);
}

static int64_t unzigzag(uint64_t number)
{
    return (int64_t)(number >> 1 ^ (number & 1 ? UINT64_MAX : 0));
}

/* ---- versions that begin with an MD5 in hexadecimal digits ---- */

static int digit_of(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static uint32_t pack_digest(const struct fb_entry *entry, uint8_t *out)
{
    if (entry->version_bytes < DIGEST_DIGITS)
        return 0;
    for (uint32_t i = 0; i < DIGEST_BYTES; i++) {
        int high = digit_of(entry->version[2 * i]), low = digit_of(entry->version[2 * i + 1]);
        if (high < 0 || low < 0)
            return 0;
        out[i] = (uint8_t)(high << 4 | low);
    }
    uint32_t rest = entry->version_bytes - DIGEST_DIGITS;
    memcpy(out + DIGEST_BYTES, entry->version + DIGEST_DIGITS, rest);
    return DIGEST_BYTES + rest;
}

static void unpack_digest(const uint8_t *from, uint32_t length, struct fb_entry *entry)
{
    static const char digits[] = "0123456789abcdef";
    for (uint32_t i = 0; i < DIGEST_BYTES; i++) {
        entry->version[2 * i] = digits[from[i] >> 4];
        entry->version[2 * i + 1] = digits[from[i] & 15];
    }
    memcpy(entry->version + DIGEST_DIGITS, from + DIGEST_BYTES, length - DIGEST_BYTES);
    entry->version_bytes = DIGEST_DIGITS + length - DIGEST_BYTES;
}

/* ---- versions that are numbers joined by '-' ---- */

/* Reads one number as it is written without need of zeros; returns its digits, 0 if there is none. */
static uint32_t read_decimal(const char *text, uint32_t length, uint64_t *number)
{
    uint64_t value = 0;
    uint32_t count = 0;
    for (; count < length && text[count] >= '0' && text[count] <= '9'; count++) {
        if ((count == 1 && value == 0) || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text[count] - '0'), &value))
            return 0;
    }
    *number = value;
    return count;
}

static uint32_t write_decimal(char *out, uint64_t number)
{
    char digits[20];
    uint32_t first = sizeof digits;
    do {
        digits[--first] = (char)('0' + number % 10);
        number /= 10;
    } while (number != 0);
    memcpy(out, digits + first, sizeof digits - first);
    return sizeof digits - first;
}

static uint32_t pack_numbers(const struct fb_entry *entry, uint8_t *out)
{
    uint32_t at = 0, packed = 0;
    while (true) {
        uint64_t number;
        uint32_t count = read_decimal(entry->version + at, entry->version_bytes - at, &number);
        if (count == 0)
            return 0;
        if (number == entry->size_bytes) {
            out[packed++] = IS_SIZE;
        } else if (number == (uint64_t)entry->mtime_ns) {
            out[packed++] = IS_MTIME;
        } else {
            out[packed] = (uint8_t)put_number(out + packed + 1, number);
            packed += 1 + out[packed];
        }
        at += count;
        if (at == entry->version_bytes)
            return packed;
        if (entry->version[at++] != '-')
            return 0;
    }
}

static void unpack_numbers(const uint8_t *from, uint32_t length, struct fb_entry *entry)
{
    uint32_t at = 0, written = 0;
    while (at < length) {
        uint32_t kind = from[at++];
        uint64_t number;
        if (kind == IS_SIZE) {
            number = entry->size_bytes;
        } else if (kind == IS_MTIME) {
            number = (uint64_t)entry->mtime_ns;
        } else {
            number = take_number(from + at, kind);
            at += kind;
        }
        if (written != 0)
            entry->version[written++] = '-';
        written += write_decimal(entry->version + written, number);
    }
    entry->version_bytes = written;
}

/* ---- public ---- */

uint32_t fb_entry_pack(const struct fb_entry *entry, uint8_t row[FB_ENTRY_ROW_BYTES_MAX])
{
    const uint64_t numbers[] = {entry->size_bytes, zigzag(entry->mtime_ns), entry->checked_ns, entry->inode};
    uint32_t lengths = 0, end = NUMBERS_AT;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t length = put_number(row + end, numbers[i]);
        lengths |= length << (4 * i);
        end += length;
    }
    row[1] = (uint8_t)lengths;
    row[2] = (uint8_t)(lengths >> 8);

    enum form form = DIGEST;
    uint32_t length = pack_digest(entry, row + end);
    if (length == 0) {
        form = NUMBERS;
        length = pack_numbers(entry, row + end);
    }
    if (length == 0) {
        form = TEXT;
        length = entry->version_bytes;
        memcpy(row + end, entry->version, length);
    }
    row[0] = (uint8_t)((entry->is_dir ? IS_DIR : 0) | (uint32_t)form << FORM_SHIFT);
    return end + length;
}

void fb_entry_unpack(const uint8_t *row, uint32_t length_bytes, struct fb_entry *entry)
{
    uint64_t numbers[4];
    uint32_t lengths = row[1] | (uint32_t)row[2] << 8, at = NUMBERS_AT;
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t length = lengths >> (4 * i) & 15;
        numbers[i] = take_number(row + at, length);
        at += length;
    }
    entry->size_bytes = numbers[0];
    entry->mtime_ns = unzigzag(numbers[1]);
    entry->checked_ns = numbers[2];
    entry->inode = numbers[3];
    entry->is_dir = row[0] & IS_DIR;

    switch ((enum form)(row[0] >> FORM_SHIFT)) {
    case DIGEST:
        unpack_digest(row + at, length_bytes - at, entry);
        break;
    case NUMBERS:
        unpack_numbers(row + at, length_bytes - at, entry);
        break;
    case TEXT:
        entry->version_bytes = length_bytes - at;
        memcpy(entry->version, row + at, entry->version_bytes);
        break;
    }
}
