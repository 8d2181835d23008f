#!/bin/sh
# Show that a stop costs nothing: train, send SIGTERM in the middle, and start the same command again.
# Usage: stop-and-restart.sh RUN STEP COMMAND... ; RUN is the run directory, STEP where to stop.
set -eu
run=$1 step=$2
shift 2

steps_done() { grep -s '"loss":' "$run/metrics.jsonl" | wc -l; }

if [ "$(steps_done)" -lt "$step" ]; then
    "$@" &
    pid=$!
    interrupted=no
    trap 'interrupted=yes' INT TERM # a Ctrl-C reaches the ranks by itself; wait for them to save
    while kill -0 "$pid" 2>/dev/null && [ "$(steps_done)" -lt "$step" ]; do sleep 0.5; done
    [ "$interrupted" = no ] && kill -TERM "$pid" 2>/dev/null && echo ">> sent SIGTERM after step $(steps_done)"
    while :; do # a trapped signal ends `wait` early
        code=0
        wait "$pid" || code=$?
        kill -0 "$pid" 2>/dev/null || break
    done
    trap - INT TERM
    [ "$code" -eq 75 ] && [ "$interrupted" = no ] || exit "$code"
    echo ">> exit code 75: stopped early with its work saved. The same command again:"
fi
exec "$@"
