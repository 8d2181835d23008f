#!/bin/bash
# Build a corpus on whole CPU nodes, under MPI with a rank for every core. From the project directory:
#   sbatch -N 2 slurm/corpus.sh CONFIG --out DIR
# RANKS_PER_NODE, if cores are many and memory is little; SRUN_MPI=pmix, if the site's default is not mpi4py's MPI.
#SBATCH --job-name=corpus
#SBATCH --output=%x-%j.log --open-mode=append
#SBATCH --exclusive --mem=0
. launch/job.sh || exit 2
RANKS_PER_NODE=${RANKS_PER_NODE:-$SLURM_CPUS_ON_NODE}
run_ranks corpus build "$@"
