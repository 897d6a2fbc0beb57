#include "platform.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "forebay/store.h"

static int64_t clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t fb_boottime_ms(void)
{
    return clock_ms(CLOCK_BOOTTIME);
}

int64_t fb_realtime_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

void fb_futex_wait(_Atomic uint32_t *word, uint32_t expected, uint32_t timeout_ms)
{
    struct timespec limit = {.tv_sec = timeout_ms / 1000, .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &limit, NULL, 0);
}

void fb_futex_wake(_Atomic uint32_t *word, int count)
{
    syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

int fb_pread_all(int fd, void *data, size_t length_bytes, uint64_t offset)
{
    char *next = data;
    while (length_bytes > 0) {
        ssize_t n = pread(fd, next, length_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EBADMSG;
        next += n;
        offset += (uint64_t)n;
        length_bytes -= (size_t)n;
    }
    return 0;
}

int fb_pwrite_all(int fd, const void *data, size_t length_bytes, uint64_t offset)
{
    const char *next = data;
    while (length_bytes > 0) {
        ssize_t n = pwrite(fd, next, length_bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -EIO;
        next += n;
        offset += (uint64_t)n;
        length_bytes -= (size_t)n;
    }
    return 0;
}

int fb_fail(struct fb_error *error, int code, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        error->code = code;
    }
    return code;
}

int fb_open_regular(int directory_fd, const char *name, int flags, mode_t mode)
{
    /* O_NONBLOCK: a FIFO in place of the file must not stop us. */
    int safe = flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
    int fd = openat(directory_fd, name, flags & O_CREAT ? safe | O_EXCL : safe, mode);
    bool created = fd >= 0 && (flags & O_CREAT);
    if (fd < 0 && errno == EEXIST && (flags & O_CREAT))
        fd = openat(directory_fd, name, safe & ~O_CREAT);
    if (fd < 0)
        return -errno;
    /* The mode is meant as it is given, whatever the umask. */
    if (created && fchmod(fd, mode) != 0) {
        int r = -errno;
        close(fd);
        return r;
    }
    struct stat st;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return -ENOTSUP;
    }
    return fd;
}

int fb_boot_id(char out[40])
{
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    char text[40] = {0};
    ssize_t n = read(fd, text, 36);
    close(fd);
    if (n != 36)
        return -EIO;
    memcpy(out, text, sizeof text);
    return 0;
}

const char *fb_refused_file_system(int fd)
{
    static const struct {
        uint32_t magic;
        const char *name;
    } refused[] = {
        {0x6969, "NFS"},       {0xff534d42u, "CIFS"},  {0xfe534d42u, "SMB"},
        {0x517b, "SMB"},       {0x01021997, "9p"},     {0x65735546, "FUSE or virtiofs"},
        {0x00c36400, "Ceph"},  {0x0bd00bd0, "Lustre"}, {0x47504653, "GPFS"},
        {0x7461636f, "OCFS2"}, {0x01161970, "GFS2"},   {0x5346414f, "AFS"},
    };
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        if ((uint32_t)fs.f_type == refused[i].magic)
            return refused[i].name;
    return NULL;
}

bool fb_is_tmpfs(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type == 0x01021994u;
}

int fb_reserve_bytes(int fd, uint64_t offset, uint64_t length_bytes)
{
    int r;
    do
        r = fallocate(fd, 0, (off_t)offset, (off_t)length_bytes);
    while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : -errno;
}
