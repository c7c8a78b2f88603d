# Runs a program, and ends it on request or when the owner of this script has ended.
#
#   watcher.sh FOLDER LOG PROGRAM ARGUMENT...
#
# The script prints the pid of the program. It reads two commands: `end` ends the program and prints
# `ended STATUS`, and `keep` then ends the script without removing the folder. The pipe on stdin has
# one writer, the owner. When the owner has ended in any way, the script ends the program and removes
# the folder.

folder=$1
log=$2
shift 2

"$@" </dev/null >>"$log" 2>&1 &
pid=$!
# The owner may end during a reply, and signals for its group must not end this script.
trap '' HUP INT PIPE TERM
echo "$pid"

# Some shells wait for the program themselves. After that another process may have its pid.
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
    # A stopped process receives no other signal.
    kill -s CONT "$pid"
    # TERM first: the shell starts background programs with QUIT ignored, so a new program would
    # lose QUIT.
    kill -s TERM "$pid"
    # For PostgreSQL, which ends on QUIT immediately but on TERM only after every session has ended.
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
    # Child processes of the program may still write for a moment.
    rm -rf "$folder" || { sleep 1; rm -rf "$folder"; }
fi
