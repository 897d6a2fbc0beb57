/* A small test framework: always-on checks, tests that register themselves, and a main.
 *
 *     TEST(adds_up) { CHECK_EQ(1 + 1, 2); }
 *     CHECK_MAIN
 *
 * A failed check prints file, line and both values and aborts, so that a debugger or a sanitizer shows where;
 * it works in child processes and in threads alike. assert() is of no use here: Python's compile flags define
 * NDEBUG. With an argument the binary runs only the tests whose name contains it.
 */
#ifndef FB_TESTS_CHECK_H
#define FB_TESTS_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- values that can be compared and printed, whatever their types ---- */

struct check_value {
    enum { CHECK_SIGNED, CHECK_UNSIGNED, CHECK_REAL } kind;
    union {
        long long as_signed;
        unsigned long long as_unsigned;
        double as_real;
    };
};

static inline struct check_value check_signed(long long value)
{
    return (struct check_value){.kind = CHECK_SIGNED, .as_signed = value};
}

static inline struct check_value check_unsigned(unsigned long long value)
{
    return (struct check_value){.kind = CHECK_UNSIGNED, .as_unsigned = value};
}

static inline struct check_value check_real(double value)
{
    return (struct check_value){.kind = CHECK_REAL, .as_real = value};
}

static inline struct check_value check_pointer(const volatile void *value)
{
    return check_unsigned((uintptr_t)value);
}

#define CHECK_VALUE(x)                                                                                       \
    _Generic((x),                                                                                            \
        _Bool: check_unsigned,                                                                               \
        char: check_signed,                                                                                  \
        signed char: check_signed,                                                                           \
        unsigned char: check_unsigned,                                                                       \
        short: check_signed,                                                                                 \
        unsigned short: check_unsigned,                                                                      \
        int: check_signed,                                                                                   \
        unsigned: check_unsigned,                                                                            \
        long: check_signed,                                                                                  \
        unsigned long: check_unsigned,                                                                       \
        long long: check_signed,                                                                             \
        unsigned long long: check_unsigned,                                                                  \
        float: check_real,                                                                                   \
        double: check_real,                                                                                  \
        default: check_pointer)(x)

static inline double check_as_real(struct check_value v)
{
    return v.kind == CHECK_REAL     ? v.as_real
           : v.kind == CHECK_SIGNED ? (double)v.as_signed
                                    : (double)v.as_unsigned;
}

/* -1, 0 or 1 by value: unlike in C, a negative number is below every unsigned one. 2: a NaN is in it. */
static inline int check_compare(struct check_value a, struct check_value b)
{
    if (a.kind == CHECK_REAL || b.kind == CHECK_REAL) {
        double x = check_as_real(a);
        double y = check_as_real(b);
        return x < y ? -1 : x > y ? 1 : x == y ? 0 : 2;
    }
    bool a_is_negative = a.kind == CHECK_SIGNED && a.as_signed < 0;
    bool b_is_negative = b.kind == CHECK_SIGNED && b.as_signed < 0;
    if (a_is_negative != b_is_negative)
        return a_is_negative ? -1 : 1;
    /* Of one sign: two's complement keeps the order. */
    return a.as_unsigned < b.as_unsigned ? -1 : a.as_unsigned > b.as_unsigned;
}

static inline void check_print(const char *text, struct check_value v)
{
    if (v.kind == CHECK_REAL)
        fprintf(stderr, "    %s = %.17g\n", text, v.as_real);
    else if (v.kind == CHECK_SIGNED)
        fprintf(stderr, "    %s = %lld\n", text, v.as_signed);
    else
        fprintf(stderr, "    %s = %llu (0x%llx)\n", text, v.as_unsigned, v.as_unsigned);
}

/* ---- checks ---- */

/* One for the whole program: support files check, too. */
__attribute__((weak)) const char *check_running = "outside of any test";

static inline void check_report(const char *file, int line, const char *text)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: %s: not true: %s\n", file, line, check_running, text);
}

#define CHECK_RELATION_(a, b, relation)                                                                      \
    do {                                                                                                     \
        struct check_value check_a = CHECK_VALUE(a);                                                         \
        struct check_value check_b = CHECK_VALUE(b);                                                         \
        int check_order = check_compare(check_a, check_b);                                                   \
        if (check_order == 2 || !(check_order relation 0)) {                                                 \
            check_report(__FILE__, __LINE__, #a " " #relation " " #b);                                       \
            check_print(#a, check_a);                                                                        \
            check_print(#b, check_b);                                                                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define CHECK_EQ(a, b) CHECK_RELATION_(a, b, ==)
#define CHECK_NE(a, b) CHECK_RELATION_(a, b, !=)
#define CHECK_LT(a, b) CHECK_RELATION_(a, b, <)
#define CHECK_LE(a, b) CHECK_RELATION_(a, b, <=)
#define CHECK_GT(a, b) CHECK_RELATION_(a, b, >)
#define CHECK_GE(a, b) CHECK_RELATION_(a, b, >=)

#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            check_report(__FILE__, __LINE__, #condition);                                                    \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

#define CHECK_STR_EQ(a, b) check_strings(__FILE__, __LINE__, #a " == " #b, (a), (b))
#define CHECK_BYTES_EQ(a, b, length_bytes)                                                                   \
    check_bytes(__FILE__, __LINE__, #a " == " #b, (a), (b), (length_bytes))

static inline void check_strings(const char *file, int line, const char *text, const char *a, const char *b)
{
    if (a != NULL && b != NULL && strcmp(a, b) == 0)
        return;
    check_report(file, line, text);
    fprintf(stderr, "    left  = %s\n    right = %s\n", a != NULL ? a : "NULL", b != NULL ? b : "NULL");
    abort();
}

static inline void check_bytes(const char *file, int line, const char *text, const void *a, const void *b,
                               size_t length_bytes)
{
    const uint8_t *left = a;
    const uint8_t *right = b;
    size_t at = 0;
    while (at < length_bytes && left[at] == right[at])
        at++;
    if (at == length_bytes)
        return;
    check_report(file, line, text);
    fprintf(stderr, "    differ first at byte %zu of %zu: 0x%02x and 0x%02x\n", at, length_bytes, left[at],
            right[at]);
    abort();
}

/* ---- tests ---- */

struct check_test {
    const char *name;
    void (*run)(void);
    struct check_test *next;
};

static struct check_test *check_first;
/* Support files check, but have no tests. */
__attribute__((unused)) static struct check_test **check_end = &check_first;

#define TEST(test_name)                                                                                      \
    static void test_name(void);                                                                             \
    __attribute__((constructor)) static void check_register_##test_name(void)                                \
    {                                                                                                        \
        static struct check_test test = {.name = #test_name, .run = test_name};                              \
        *check_end = &test;                                                                                  \
        check_end = &test.next;                                                                              \
    }                                                                                                        \
    static void test_name(void)

/* File name without folder and extension. */
static inline int check_stem(const char *path, const char **stem)
{
    const char *slash = strrchr(path, '/');
    *stem = slash != NULL ? slash + 1 : path;
    return (int)strcspn(*stem, ".");
}

static inline int check_run_all(const char *file, const char *wanted)
{
    const char *stem;
    int stem_length = check_stem(file, &stem);
    unsigned run_count = 0;

    for (struct check_test *test = check_first; test != NULL; test = test->next) {
        if (wanted != NULL && strstr(test->name, wanted) == NULL)
            continue;
        check_running = test->name;
        test->run();
        run_count++;
    }
    if (run_count == 0) {
        fprintf(stderr, "%.*s: no test is named like %s\n", stem_length, stem,
                wanted != NULL ? wanted : "that");
        return EXIT_FAILURE;
    }
    printf("%.*s: %u tests passed\n", stem_length, stem, run_count);
    return EXIT_SUCCESS;
}

#define CHECK_MAIN                                                                                           \
    int main(int argc, char **argv)                                                                          \
    {                                                                                                        \
        return check_run_all(__FILE__, argc > 1 ? argv[1] : NULL);                                           \
    }

#endif
