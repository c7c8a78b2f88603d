# Runs a program, and ends it when whoever started this says so or has gone away.
#
#   watcher.sh FOLDER LOG PROGRAM ARGUMENT...
#
# It prints the pid of the program, and `ended STATUS` in answer to `end`. It reads `end`, which
# ends the program, and `keep`, which ends the watcher too and leaves the folder. The pipe on
# stdin has one writer: when that is gone, however it went, the program is ended and the folder
# removed.

folder=$1
log=$2
shift 2

"$@" </dev/null >>"$log" 2>&1 &
pid=$!
# The owner may go away in the middle of an answer, and nobody else is to end this.
trap '' HUP INT PIPE TERM
echo "$pid"

# Some shells wait for the program on their own; from then on its pid may be another's.
is_ours() {
    if [ -e "/proc/$$/status" ]; then
        grep -q "^PPid:[[:space:]]*$$\$" "/proc/$pid/status"
    else
        [ "$(ps -o ppid= -p "$pid" | tr -d ' ')" = "$$" ]
    fi
}

word=
read -r word
if is_ours; then
    # One that is halted hears nothing else.
    kill -s CONT "$pid"
    # TERM first: the shell starts programs in the background with QUIT ignored, so that it
    # would be lost on one that has just begun.
    kill -s TERM "$pid"
    # At once, for PostgreSQL: TERM waits there until every session has ended.
    kill -s QUIT "$pid"
fi
wait "$pid"
status=$?
if [ "$word" = end ]; then
    echo "ended $status"
    word=
    read -r word
fi
if [ "$word" != keep ]; then
    # What the program had started may write a little longer.
    rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }
fi
