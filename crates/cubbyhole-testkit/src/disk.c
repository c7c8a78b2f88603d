/*
 * A disk that is full or fails to sync, for a program that is started with this library in LD_PRELOAD
 * and the path of a control file in CUBBYHOLE_TEST_DISK. The first byte of the control file is the mode
 * of failure (0: none). A text that ends with 0 follows. The failure affects files whose paths contain
 * that text.
 *
 * A full disk accepts writes that overwrite a file. It rejects writes that extend one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#if __SIZEOF_POINTER__ != 8
#error "an offset is one argument of a system call only where pointers have eight bytes"
#endif

#define FULL 'f'
#define FAILS_SYNCS 's'

struct orders {
    volatile char mode;
    char files[255];
};

static const struct orders *orders;

__attribute__((constructor)) static void open_orders(void) {
    const char *path = getenv("CUBBYHOLE_TEST_DISK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof(struct orders), PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) orders = map;
    close(file);
}

static int is_affected(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, orders->files) != 0;
}

/* Whether a write at an offset, or at the file position if that is -1, must fail for want of space. */
static int has_no_room(int fd, off_t offset, size_t bytes) {
    struct stat about;
    if (!orders || orders->mode != FULL) return 0;
    int before = errno, refused = 0;
    if (!fstat(fd, &about) && S_ISREG(about.st_mode) && is_affected(fd)) {
        if (offset == -1) {
            int appends = fcntl(fd, F_GETFL) & O_APPEND;
            offset = appends ? about.st_size : lseek(fd, 0, SEEK_CUR);
        }
        refused = offset + (off_t)bytes > about.st_size;
    }
    errno = refused ? ENOSPC : before;
    return refused;
}

static int fails_to_sync(int fd) {
    if (!orders || orders->mode != FAILS_SYNCS) return 0;
    int before = errno, fails = is_affected(fd);
    errno = fails ? EIO : before;
    return fails;
}

static size_t total(const struct iovec *parts, int count) {
    size_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}

ssize_t write(int fd, const void *data, size_t count) {
    return has_no_room(fd, -1, count) ? -1 : syscall(SYS_write, fd, data, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return has_no_room(fd, -1, total(parts, count)) ? -1 : syscall(SYS_writev, fd, parts, count);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t offset) {
    return has_no_room(fd, offset, count) ? -1 : syscall(SYS_pwrite64, fd, data, count, offset);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t offset) {
    return pwrite64(fd, data, count, offset);
}

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    if (has_no_room(fd, offset, total(parts, count))) return -1;
    return syscall(SYS_pwritev, fd, parts, count, offset, 0L);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    return pwritev64(fd, parts, count, offset);
}

int fallocate64(int fd, int mode, off64_t offset, off64_t bytes) {
    return has_no_room(fd, offset, bytes) ? -1 : syscall(SYS_fallocate, fd, mode, offset, bytes);
}

int fallocate(int fd, int mode, off_t offset, off_t bytes) {
    return fallocate64(fd, mode, offset, bytes);
}

/* Unlike the others, this function returns the error number. */
int posix_fallocate64(int fd, off64_t offset, off64_t bytes) {
    return fallocate64(fd, 0, offset, bytes) ? errno : 0;
}

int posix_fallocate(int fd, off_t offset, off_t bytes) {
    return posix_fallocate64(fd, offset, bytes);
}

int fsync(int fd) {
    return fails_to_sync(fd) ? -1 : syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
    return fails_to_sync(fd) ? -1 : syscall(SYS_fdatasync, fd);
}
