#!/bin/sh
# What srun or mpiexec starts for each rank: srun launch/rank.sh hpctrain train CONFIG
# Sets defaults for threads, memory and file modes, each only where it is not set, and becomes the command.
set -eu
umask 077

# A warning that comes before Python listens must not kill the rank. Python listens once it runs;
# slurm/pretrain.sh repeats the warning.
trap '' USR1 USR2

# The cores this rank may use: what srun gave it; else its binding; else an even share of the node.
if [ -z "${OMP_NUM_THREADS:-}" ]; then
    local_ranks=${LOCAL_WORLD_SIZE:-${OMPI_COMM_WORLD_LOCAL_SIZE:-${MPI_LOCALNRANKS:-1}}}
    cores=$(nproc)
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
        cores=$SLURM_CPUS_PER_TASK
    elif [ $((cores * local_ranks)) -gt "$(nproc --all)" ]; then # not bound: all ranks see the same cores
        cores=$((cores / local_ranks))
    fi
    OMP_NUM_THREADS=$((cores > 0 ? cores : 1))
fi
export OMP_NUM_THREADS

# glibc gives large blocks back to the system at every step unless told to keep them.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:--1}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-268435456}"

# Caches go to the node's own storage, a directory for each job: in $HOME the ranks of all jobs would meet, and fill it.
# Bytecode is read beside the sources and not written: elsewhere, every rank would compile torch anew.
# Outside a job nothing is moved.
job=${SLURM_JOB_ID:-${PBS_JOBID:-${FLUX_JOB_ID:-}}}
if [ -z "${HPCTRAIN_LOCAL:-}" ] && [ -n "$job" ]; then
    HPCTRAIN_LOCAL=/tmp/hpctrain-$(id -u)-$(printf %s "$job" | tr -c 'A-Za-z0-9' _)
fi
if [ -n "${HPCTRAIN_LOCAL:-}" ]; then
    export HPCTRAIN_LOCAL
    mkdir -m 700 "$HPCTRAIN_LOCAL" 2>/dev/null || # another rank was first, and no other user
        [ -n "$(find "$HPCTRAIN_LOCAL" -prune -type d -user "$(id -u)")" ] ||
        { echo "rank.sh: $HPCTRAIN_LOCAL on $(hostname) cannot hold caches: set HPCTRAIN_LOCAL" >&2; exit 2; }
    export PYTHONDONTWRITEBYTECODE="${PYTHONDONTWRITEBYTECODE-1}"
    cache=$HPCTRAIN_LOCAL/cache
    export XDG_CACHE_HOME="${XDG_CACHE_HOME:-$cache}"
    export TRITON_HOME="${TRITON_HOME:-$cache}" TRITON_CACHE_DIR="${TRITON_CACHE_DIR:-$cache/triton}"
    export TORCHINDUCTOR_CACHE_DIR="${TORCHINDUCTOR_CACHE_DIR:-$cache/inductor}"
    export TORCH_EXTENSIONS_DIR="${TORCH_EXTENSIONS_DIR:-$cache/torch_extensions}"
    export CUDA_CACHE_PATH="${CUDA_CACHE_PATH:-$cache/cuda}"
    export MIOPEN_USER_DB_PATH="${MIOPEN_USER_DB_PATH:-$cache/miopen}"
    export MIOPEN_CUSTOM_CACHE_DIR="${MIOPEN_CUSTOM_CACHE_DIR:-$cache/miopen}"
    export NUMBA_CACHE_DIR="${NUMBA_CACHE_DIR:-$cache/numba}" MPLCONFIGDIR="${MPLCONFIGDIR:-$cache/matplotlib}"
    export HF_HOME="${HF_HOME:-$cache/huggingface}"
    export WANDB_CACHE_DIR="${WANDB_CACHE_DIR:-$cache/wandb}" WANDB_DATA_DIR="${WANDB_DATA_DIR:-$cache/wandb}"
    # A Python that was broadcast looks for its library where it was installed, unless told.
    library=$HPCTRAIN_LOCAL/python/libpython
    [ ! -d "$library" ] || export LD_LIBRARY_PATH="$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi

exec "$@"
