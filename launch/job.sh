# shellcheck shell=bash
# Sourced by batch scripts: starts the ranks of a job, and decides what follows when they have ended.
#   . launch/job.sh; run_ranks train CONFIG ...   `hpctrain train CONFIG ...` in ranks on all nodes; does not return
#   . launch/job.sh; run_once export RUN ...      the same command once, on one node; does not return
# Read, each optional:
#   VENV             the environment; .venv if not set
#   RANKS_PER_NODE   if not set: one a GPU; where there are none, 2
#   LAUNCHER         srun, mpirun, mpiexec or flux; if not set: srun under Slurm, mpiexec under PBS, flux under Flux
#   SRUN_MPI         pmix, pmi2 or none, for srun --mpi=; if not set, the site's default
#   BROADCAST        copy VENV to every node first: see launch/broadcast.sh
#   MASTER_ADDR, MASTER_PORT, HPCTRAIN_TOKEN, HPCTRAIN_SERIES   passed on to the ranks
# Set for the ranks: HPCTRAIN_JOB_START and HPCTRAIN_DEADLINE (seconds since the epoch), HPCTRAIN_TOKEN, and
# HPCTRAIN_VERDICT, the file where a rank leaves its exit code if no restart will help.
# The job ends with the ranks' code if that is 0, 2, 3, 4, 76 or 93. After 75 (stopped early, work saved), and after a
# crash of train or finetune, it is requeued. Where that cannot be it ends with 75, and the next of a chain goes on.

# A handler only sets a flag. CONT comes with every warning: a bash that traps it too loses warnings.
warned=
trap 'warned=yes' USR1 USR2 TERM
set -uo pipefail
umask 077
launch=$(dirname "${BASH_SOURCE[0]}")

run_ranks() {
    find_job
    local ranks=${RANKS_PER_NODE:-$((gpus > 0 ? gpus : 2))}
    [ -z "${BROADCAST:-}" ] || broadcast_venv "$VENV" || exit 2
    say "start $((${SLURM_RESTART_COUNT:-0} + 1)) of $1: $((nodes * ranks)) ranks on $nodes nodes by $LAUNCHER, $(end_of_job)"
    run "$nodes" "$ranks" "$@"
    finish "$1"
}

run_once() {
    find_job
    [ "$nodes" -eq 1 ] || say "$1 uses one of $nodes nodes"
    run 1 1 "$@"
    exit "$code"
}

# Run ranks to their end; sets code and seconds: run NODES RANKS_PER_NODE COMMAND ...
run() {
    local began=$SECONDS
    export HPCTRAIN_VERDICT="$PWD/.hpctrain-$job"
    rm -f "$HPCTRAIN_VERDICT"
    start_ranks "$@" &
    wait_for $!
    # The code of a rank that failed for good; srun would tell that of the others, which it killed for it.
    [ ! -s "$HPCTRAIN_VERDICT" ] || code=$(<"$HPCTRAIN_VERDICT")
    rm -f "$HPCTRAIN_VERDICT"
    seconds=$((SECONDS - began))
    clean_nodes
}

say() { echo "job $job: $*"; }

# What the scheduler knows: job, nodes; cores and GPUs of a node; start and end.
find_job() {
    local start=''
    end=''
    : "${VENV:=.venv}"
    if [ -n "${SLURM_JOB_ID:-}" ]; then
        job=$SLURM_JOB_ID nodes=$SLURM_NNODES cores=${SLURM_CPUS_ON_NODE:-1} gpus=${SLURM_GPUS_ON_NODE:-0}
        : "${LAUNCHER:=srun}"
        read -r start end < <(SLURM_TIME_FORMAT=%s squeue --noheader --jobs="$job" --format='%S %e')
    elif [ -n "${PBS_JOBID:-}" ]; then
        job=$PBS_JOBID nodes=$(sort -u "$PBS_NODEFILE" | wc -l) cores=$(nproc) gpus=$(count_gpus)
        : "${LAUNCHER:=mpiexec}"
        export MASTER_ADDR="${MASTER_ADDR:-$(head -n 1 "$PBS_NODEFILE")}"
        read -r start end < <(times_of_pbs)
    elif [ -n "${FLUX_URI:-}" ]; then # a batch script of Flux has no FLUX_JOB_ID
        job=$(flux getattr jobid) nodes=$(flux resource list -n -o '{nnodes}') cores=$(nproc) gpus=$(count_gpus)
        : "${LAUNCHER:=flux}"
        start=$(date +%s) end=$(flux job timeleft) && end=$((start + ${end%.*}))
    else
        echo "launch/job.sh: no job of Slurm, PBS or Flux; on one machine use: hpctrain train CONFIG --ranks N" >&2
        exit 2
    fi
    [ -x "$VENV/bin/hpctrain" ] || { say "VENV=$VENV holds no hpctrain; make one with launch/install.sh" >&2; exit 2; }
    [[ $start =~ ^[0-9]+$ ]] || start=$(date +%s)
    export HPCTRAIN_JOB_START=$start
    [[ ! $end =~ ^[0-9]+$ ]] || export HPCTRAIN_DEADLINE=$end
    export HPCTRAIN_TOKEN="${HPCTRAIN_TOKEN:-$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')}"
    # shellcheck source=launch/broadcast.sh
    . "$launch/broadcast.sh"
}

count_gpus() { nvidia-smi --list-gpus 2>/dev/null | wc -l; }

times_of_pbs() {
    local facts start hours minutes seconds
    facts=$(qstat -f "$PBS_JOBID")
    start=$(date -d "$(sed -n 's/^ *stime = //p' <<<"$facts")" +%s)
    IFS=: read -r hours minutes seconds < <(sed -n 's/^ *Resource_List.walltime = //p' <<<"$facts")
    echo "$start $((start + 10#$hours * 3600 + 10#$minutes * 60 + 10#$seconds))"
}

end_of_job() {
    if [ -n "${HPCTRAIN_DEADLINE:-}" ]; then
        date -d "@$HPCTRAIN_DEADLINE" '+until %F %T'
    else
        [ "$end" = NONE ] && echo "without a time limit" || echo "its end is not known: it saves when it is warned"
    fi
}

# Become the launcher of `hpctrain COMMAND ...`: start_ranks NODES RANKS_PER_NODE COMMAND ...
start_ranks() {
    local nodes=$1 ranks=$2 total=$(($1 * $2)) name variables=()
    shift 2
    set -- "$launch/rank.sh" "$VENV/bin/hpctrain" "$@"
    case $LAUNCHER in
    *srun)
        # Ranks do not stop all at one moment. If the first to leave had the others killed (--kill-on-bad-exit=1),
        # their files would not be closed and the step would count as killed. --wait ends those that hang.
        exec "$LAUNCHER" --nodes="$nodes" --ntasks="$total" --ntasks-per-node="$ranks" \
            --cpus-per-task="$((cores > ranks ? cores / ranks : 1))" ${SRUN_MPI:+--mpi="$SRUN_MPI"} \
            --kill-on-bad-exit=0 --wait="${SLURM_WAIT:-30}" "$@" ;;
    *flux)
        exec "$LAUNCHER" run --nodes="$nodes" --tasks-per-node="$ranks" --exclusive -o gpu-affinity=off \
            -o cpu-affinity=per-task "$@" ;;
    *)
        if "$LAUNCHER" --version | grep -q 'Open MPI'; then
            for name in $(compgen -e | grep -E '^(HPCTRAIN_|MASTER_|OMP_|PYTHON)'); do variables+=(-x "$name"); done
            exec "$LAUNCHER" -n "$total" --map-by "ppr:$ranks:node" --bind-to none "${variables[@]}" "$@"
        fi
        exec "$LAUNCHER" -n "$total" -ppn "$ranks" "$@" ;; # MPICH, Intel MPI and PALS
    esac
}

# Wait for the launcher and set its code. A warning ends `wait` early: pass it on, and again until the ranks have
# stopped, since those that are still starting do not hear it.
wait_for() {
    while kill -0 "$1" 2>/dev/null; do
        if [ -n "$warned" ]; then
            kill -USR1 "$1" 2>/dev/null
            sleep 1
        else
            wait "$1"
        fi
    done
    wait "$1"
    code=$?
}

# What follows the end of the ranks of a command.
finish() {
    case $code in
    0 | 2 | 3 | 4 | 76 | 93) exit "$code" ;;
    75) say "$1 stopped early, its work is saved" ;;
    *)
        say "$1 ended with code $code after $seconds s"
        case $1 in train | finetune) ;; *) exit "$code" ;; esac
        # So early nothing was trained: the launcher or the environment is broken, and would be again.
        [ "$seconds" -ge 5 ] || [ -n "$warned" ] || { say "too early for a restart to help"; exit "$code"; } ;;
    esac
    if [ -n "${SLURM_JOB_ID:-}" ] && may_requeue && scontrol requeue "$SLURM_JOB_ID"; then
        say "requeued"
        trap - TERM
        sleep 60 # requeueing ends this script
    fi
    exit 75
}

# Slurm would also requeue a job that was cancelled. That is COMPLETING like one at its time limit, but for no reason.
may_requeue() {
    local facts
    facts=$(scontrol show job --oneliner "$SLURM_JOB_ID")
    case $facts in
    *" Requeue=0 "*) say "may not be requeued: the next job goes on" ;;
    *" JobState=RUNNING "* | *" JobState=COMPLETING Reason=TimeLimit "*) return 0 ;;
    *) say "not requeued from here: Slurm is ending it" ;;
    esac
    return 1
}
