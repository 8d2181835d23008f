#!/bin/bash
# Pretrain on whole nodes; runs again by itself until the run is finished. From the project directory:
#   sbatch -N 2 --gpus-per-node 4 slurm/pretrain.sh CONFIG [section.key=value ...]
# Ranks per node: one a GPU; without GPUs RANKS_PER_NODE, 2 if not set. VENV: the environment, .venv if not set.
#SBATCH --job-name=pretrain
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
#SBATCH --signal=B:USR1@300
set -uo pipefail
umask 077

warned=
trap 'warned=yes' USR1 # only this one: a shell that also traps CONT loses warnings

cpus=${SLURM_CPUS_ON_NODE:-1}
ranks=${SLURM_GPUS_ON_NODE:-0}
[ "$ranks" -gt 0 ] || ranks=${RANKS_PER_NODE:-2}
[ "$ranks" -le "$cpus" ] || ranks=$cpus

# Ranks that stop early leave with 75, not all at the same moment: if the first to leave had the others killed
# (--kill-on-bad-exit=1), they could not close their files and the step would end as killed, not with 75.
# After a crash the rest is killed within --wait seconds.
srun --nodes="$SLURM_NNODES" --ntasks="$((SLURM_NNODES * ranks))" --ntasks-per-node="$ranks" \
    --cpus-per-task="$((cpus / ranks))" --kill-on-bad-exit=0 --wait=60 \
    launch/rank.sh "${VENV:-.venv}/bin/hpctrain" train "$@" &
step=$!

# `wait` returns early when the warning comes: pass it on, and again until the ranks have stopped.
while kill -0 "$step" 2>/dev/null; do
    if [ -n "$warned" ]; then
        kill -USR1 "$step" 2>/dev/null
        sleep 5
    else
        wait "$step"
    fi
done
wait "$step"
code=$?

if [ "$code" -eq 75 ]; then
    echo "stopped early with its work saved: requeueing job $SLURM_JOB_ID"
    scontrol requeue "$SLURM_JOB_ID" && sleep 60 # requeueing ends this script
fi
exit "$code"
