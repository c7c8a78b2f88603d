/*
 * Keeps standard input and output closed if the process was started that way (`<&-`, `>&-`).
 *
 * Before `main`, Rust's runtime opens /dev/null in place of a closed stream. Output to a closed
 * stdout would then be lost without an error, and an import from a closed stdin would read an empty
 * file. This constructor runs earlier and opens /dev/null with the opposite access mode. Reads and
 * writes then fail with EBADF, and no file that is opened later gets the descriptor of the stream.
 * Safe Rust cannot run code that early.
 */
#include <fcntl.h>
#include <unistd.h>

static void keep_closed(int stream, int wrong_mode) {
    /* `open` returns the lowest free descriptor, and all lower ones are in use. */
    if (fcntl(stream, F_GETFD) == -1) (void)open("/dev/null", wrong_mode);
}

__attribute__((constructor)) static void keep_closed_streams_closed(void) {
    keep_closed(STDIN_FILENO, O_WRONLY);
    keep_closed(STDOUT_FILENO, O_RDONLY);
}
