/* The kernel as the store uses it: clocks, futexes, whole reads and writes, file systems refused. */
#ifndef FB_PLATFORM_H
#define FB_PLATFORM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fb_error;

int64_t fb_boottime_ms(void); /* counts through suspend; no clock setting moves it */
int64_t fb_realtime_ms(void);

/* Wait while *word == expected, at most timeout_ms. Returns when woken, changed or timed out. Works
 * across processes and PID namespaces. */
void fb_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint32_t timeout_ms);
void fb_futex_wake(_Atomic uint32_t *word, int count);

/* All bytes or a negative errno; a file that ends before them is -EBADMSG, damage and no failing disk. */
int fb_pread_all(int fd, void *data, size_t length_bytes, uint64_t offset);
int fb_pwrite_all(int fd, const void *data, size_t length_bytes, uint64_t offset);

/* Set *error (which may be NULL) and return code. */
int fb_fail(struct fb_error *error, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Open below a directory descriptor, never through a symbolic link; -ELOOP, -ENOTSUP for what is no
 * regular file. */
int fb_open_regular(int directory_fd, const char *name, int flags, mode_t mode);

/* This kernel's boot id, 36 characters and a zero. */
int fb_boot_id(char out[40]);

/* Name of a file system that cannot be shared safely (NFS and its like), or NULL. */
const char *fb_refused_file_system(int fd);
bool fb_is_tmpfs(int fd);

/* Reserve bytes for real: never emulated by writing. -EOPNOTSUPP where the file system cannot. */
int fb_reserve_bytes(int fd, uint64_t offset, uint64_t length_bytes);

#endif
