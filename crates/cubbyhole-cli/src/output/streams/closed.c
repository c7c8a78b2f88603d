/*
 * Keeps standard input and output unusable if the process was started with them closed (`<&-`, `>&-`).
 *
 * Rust's runtime opens /dev/null in place of a closed stream before `main`, so that output to a
 * closed stdout would be lost without an error, and an import from a closed stdin would read an
 * empty file. This runs earlier and opens /dev/null the wrong way round: reading and writing then
 * fail with EBADF, and no file that is opened later takes the number of the stream. There is no way
 * to do so in safe Rust.
 */
#include <fcntl.h>
#include <unistd.h>

static void keep_closed(int stream, int wrong_mode) {
    /* `open` takes the lowest number that is free, and those below this one are in use. */
    if (fcntl(stream, F_GETFD) == -1) (void)open("/dev/null", wrong_mode);
}

__attribute__((constructor)) static void keep_closed_streams_closed(void) {
    keep_closed(STDIN_FILENO, O_WRONLY);
    keep_closed(STDOUT_FILENO, O_RDONLY);
}
