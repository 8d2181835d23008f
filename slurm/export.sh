#!/bin/bash
# Export a run on one node. From the project directory:
#   sbatch slurm/export.sh RUN --out DIR [--format hf|gguf|peft] [--dtype TYPE]
# launch/job.sh names the variables it reads.
#SBATCH --job-name=export
#SBATCH --output=%x-%j.log --open-mode=append
#SBATCH --exclusive --mem=0
. launch/job.sh || exit 2
run_once export "$@"
