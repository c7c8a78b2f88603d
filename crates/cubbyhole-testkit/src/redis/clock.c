/*
 * A manual clock for a program that is started with this library in LD_PRELOAD and the path of the
 * clock's file in CUBBYHOLE_TEST_CLOCK.
 *
 * Redis expires keys by the system's clock and has no setting for another one. This library replaces
 * the functions that return the time of day. They read the file, which contains the microseconds since
 * 1970 as eight bytes in native order. Monotonic clocks are not replaced, because sockets and timers
 * use them.
 *
 * The library calls the kernel with syscall instead of dlsym. dlsym may allocate, and the allocator of
 * Redis reads the time while it starts.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const long long *file_micros;

__attribute__((constructor)) static void open_clock(void) {
    const char *path = getenv("CUBBYHOLE_TEST_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) file_micros = map;
    close(file);
}

int clock_gettime(clockid_t id, struct timespec *out) {
    if (file_micros && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) {
        long long now = *file_micros;
        out->tv_sec = now / 1000000;
        out->tv_nsec = now % 1000000 * 1000;
        return 0;
    }
    return syscall(SYS_clock_gettime, id, out);
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec;
    out->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
