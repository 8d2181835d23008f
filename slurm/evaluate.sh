#!/bin/bash
# Evaluate a run on one node, on a GPU if there is one. From the project directory:
#   sbatch slurm/evaluate.sh RUN [--suite NAME] [--out DIR]
# launch/job.sh names the variables it reads.
#SBATCH --job-name=evaluate
#SBATCH --output=%x-%j.log --open-mode=append
#SBATCH --exclusive --mem=0
. launch/job.sh || exit 2
run_once evaluate "$@"
