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

exec "$@"
