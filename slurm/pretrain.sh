#!/bin/bash
# Pretrain on whole nodes; runs again by itself until the run is finished. From the project directory:
#   sbatch -N 2 --gpus-per-node 4 slurm/pretrain.sh CONFIG [section.key=value ...]
# launch/job.sh names the variables it reads, and the exit codes.
#SBATCH --job-name=pretrain
#SBATCH --output=%x-%j.log --open-mode=append
#SBATCH --exclusive --mem=0
#SBATCH --requeue --signal=B:USR1@120
. launch/job.sh || exit 2
run_ranks train "$@"
