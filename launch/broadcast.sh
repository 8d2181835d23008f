# shellcheck shell=bash
# Sourced by launch/job.sh: this job's own directory on every node's own storage, and the environment in it.
#   broadcast_venv VENV   copy the environment there, with its Python, and set VENV to the copy;
#                         where HPCTRAIN_IMAGE is set, copy that container image and set HPCTRAIN_IMAGE instead
#   clean_nodes           remove the directories, with what this user's ended jobs left: when the ranks have ended
# A broadcast that cannot be says why, cleans up and returns 2. Read:
#   BROADCAST              a directory of each node's own, such as /tmp; yes: $TMPDIR, or /tmp where that is not set
#   BROADCAST_CACHE        where packed environments are kept; VENV.packed if not set
#   BROADCAST_COMPRESSION  zstd or none; zstd if not set and there is one
# Set: HPCTRAIN_LOCAL, the directory, in /tmp where there is no BROADCAST: launch/rank.sh has the caches in it too.

[ "${BROADCAST:-}" != yes ] || BROADCAST=${TMPDIR:-/tmp}
: "${job:=${SLURM_JOB_ID:-${PBS_JOBID:-$$}}}"
HPCTRAIN_LOCAL=${BROADCAST:-/tmp}/hpctrain-$(id -u)-${job//[!A-Za-z0-9]/_}
export HPCTRAIN_LOCAL
on_node=$(dirname "${BASH_SOURCE[0]}")/node.sh

# Run a command once on every node of the job. Without a scheduler this machine is the only node.
on_every_node() {
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        srun --nodes="$SLURM_NNODES" --ntasks="$SLURM_NNODES" --ntasks-per-node=1 --mpi=none --overlap \
            --kill-on-bad-exit=0 --wait=0 "$@"
    elif [ -n "${PBS_NODEFILE:-}" ]; then
        per_node=(-ppn 1) # MPICH, Intel MPI and PALS
        ! mpiexec --version | grep -q 'Open MPI' || per_node=(--map-by ppr:1:node)
        mpiexec -n "$(sort -u "$PBS_NODEFILE" | wc -l)" "${per_node[@]}" "$@"
    elif [ -n "${FLUX_URI:-}" ]; then
        flux exec --rank=all "$@"
    else
        "$@"
    fi
}

# This user's jobs, where the scheduler tells: what carries the number of another is a leftover.
live_jobs() { [ -z "${SLURM_JOB_ID:-}" ] || squeue --noheader --user="$(id -u)" --format=%A 2>/dev/null; }

make_directories() { # for BYTES
    # shellcheck disable=SC2046 # one word a job
    on_every_node "$on_node" make "$HPCTRAIN_LOCAL" "$1" $(live_jobs)
}

clean_nodes() {
    # shellcheck disable=SC2046
    on_every_node "$on_node" remove "$HPCTRAIN_LOCAL" $(live_jobs) ||
        echo "$HPCTRAIN_LOCAL may be left on a node: the end of your next job there removes it" >&2
}

# Bring a file of the shared file system, and its checksum, to HPCTRAIN_LOCAL on every node.
send() {
    local copy
    copy=$HPCTRAIN_LOCAL/$(basename "$1")
    if [ -n "${SLURM_JOB_ID:-}" ] && command -v sbcast >/dev/null; then
        sbcast --force --preserve "$1" "$copy" && on_every_node "$on_node" check "$copy" "$2" && return
        echo "sbcast failed: each node reads $1 from the shared file system instead" >&2
    else
        echo "there is no sbcast: each node reads $1 from the shared file system" >&2
    fi
    on_every_node "$on_node" copy "$1" "$copy" && on_every_node "$on_node" check "$copy" "$2"
}

broadcast_venv() {
    local start=$SECONDS what
    if [ -n "${HPCTRAIN_IMAGE:-}" ]; then
        what=$HPCTRAIN_IMAGE
        send_image
    else
        what=$1
        send_venv "$1"
    fi || { echo "$what could not be broadcast" >&2; clean_nodes; return 2; }
    echo "broadcast $what to $HPCTRAIN_LOCAL on every node: $((SECONDS - start)) s"
}

send_venv() {
    local packed archive
    packed=$("$1/bin/python" -I "$(dirname "$on_node")/pack_environment.py" "$1" ${BROADCAST_CACHE:+"$BROADCAST_CACHE"}) || return
    archive=$(echo "$packed"/environment.tar*)
    make_directories $(($(<"$packed/unpacked_bytes") + $(stat -c %s "$archive"))) &&
        send "$archive" "$(<"$packed/sha256")" &&
        on_every_node "$on_node" unpack "$HPCTRAIN_LOCAL/$(basename "$archive")" &&
        export VENV="$HPCTRAIN_LOCAL/env"
}

send_image() {
    local sha256
    [ -f "$HPCTRAIN_IMAGE" ] ||
        { echo "HPCTRAIN_IMAGE=$HPCTRAIN_IMAGE is no file: only an image that is one file is broadcast" >&2; return 1; }
    sha256=$(sha256sum <"$HPCTRAIN_IMAGE") &&
        make_directories "$(stat -c %s "$HPCTRAIN_IMAGE")" &&
        send "$HPCTRAIN_IMAGE" "${sha256%% *}" &&
        HPCTRAIN_IMAGE=$HPCTRAIN_LOCAL/$(basename "$HPCTRAIN_IMAGE") && export HPCTRAIN_IMAGE
}
