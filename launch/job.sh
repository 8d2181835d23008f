# shellcheck shell=bash
# Sourced by batch scripts: starts the ranks of a job, and decides what follows when they have ended.
#   . launch/job.sh; run_ranks train CONFIG ...   `hpctrain train CONFIG ...` in ranks on all nodes; does not return
#   . launch/job.sh; run_once export RUN ...      the same command once, on one node; does not return
# Read, each optional:
#   VENV             the environment; .venv if not set
#   RANKS_PER_NODE   if not set: one a GPU; where there are none, 2
#   LAUNCHER         srun, mpirun, mpiexec or flux; if not set: srun under Slurm, mpiexec under PBS, flux under Flux
#   SRUN_MPI         pmix, pmi2 or none, for srun --mpi=; if not set, the site's default
#   SLURM_WAIT       srun --wait=: seconds that ranks may outlive the first that ends; 30 if not set
#   BROADCAST        copy VENV to every node first: see launch/broadcast.sh
#   MASTER_ADDR, MASTER_PORT, HPCTRAIN_TOKEN, HPCTRAIN_SERIES   passed on to the ranks
# Set for the ranks: HPCTRAIN_JOB_START and HPCTRAIN_DEADLINE (seconds since the epoch), HPCTRAIN_TOKEN, HPCTRAIN_NOTES.
# The job ends with the ranks' code if that is 0, 2, 3, 4, 76 or 93. After 75 (stopped early, work saved), and after a
# crash of train or finetune, it is requeued. Where that cannot be it ends with 75, and the next of a chain goes on.
# The working directory must be one that all nodes share. The file .hpctrain-JOB there outlives a requeue; it holds a
# line `start` for each start, and from the ranks `ready` when a step was made, or a code that no restart will change.

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
    say "start $((${SLURM_RESTART_COUNT:-0} + 1)) of $1," \
        "$((nodes * ranks)) ranks on $nodes nodes by $LAUNCHER, $(end_of_job)"
    run "$nodes" "$ranks" "$@"
    finish "$1"
}

run_once() {
    find_job
    [ "$nodes" -eq 1 ] || say "$1 uses one of $nodes nodes"
    run 1 1 "$@"
    exit "$code"
}

# Run ranks to their end; sets code, and vain, the starts in a row without a step: run NODES RANKS_PER_NODE COMMAND ...
run() {
    local told
    export HPCTRAIN_NOTES="$PWD/.hpctrain-$job"
    trap 'rm -f "$HPCTRAIN_NOTES"' EXIT
    echo start >>"$HPCTRAIN_NOTES" || exit 2
    start_ranks "$@" &
    wait_for $!
    # srun ends with the highest code: after a rank has failed that is the one of the others, which srun then killed.
    read -r vain told < <(awk '/^start$/ {vain++; told = ""} /^ready$/ {vain = 0} /^[0-9]+$/ && !told {told = $0}
        END {print vain, told}' "$HPCTRAIN_NOTES")
    code=${told:-$code}
    clean_nodes &
    timeout 15 tail --pid=$! -f /dev/null # a node that does not answer must not cost the requeue
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
    # Under srun the ranks know the first node by themselves; elsewhere they would need MPI to tell. This is that node.
    [[ $LAUNCHER = *srun ]] || export MASTER_ADDR="${MASTER_ADDR:-${SLURMD_NODENAME:-$(hostname)}}"
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
        say "$1 ended with code $code"
        case $1 in train | finetune) ;; *) exit "$code" ;; esac
        # What comes later than a first step, the ranks count themselves.
        [ "${vain:-0}" -lt 3 ] || { say "$vain starts in a row ended before a first step: not run again"; exit 93; } ;;
    esac
    if may_requeue && scontrol requeue "$SLURM_JOB_ID"; then
        say "requeued"
        trap - TERM EXIT
        sleep 60 # requeueing ends this script
    fi
    exit 75
}

# Slurm would also requeue a job that was cancelled. That is COMPLETING like one at its time limit, but for no reason.
may_requeue() {
    local facts=' Requeue=0 '
    [ -z "${SLURM_JOB_ID:-}" ] || facts=$(scontrol show job --oneliner "$SLURM_JOB_ID")
    case $facts in
    *" Requeue=0 "*) say "cannot be requeued: submit it again, or let the next of a chain go on" ;;
    *" JobState=RUNNING "* | *" JobState=COMPLETING Reason=TimeLimit "*) return 0 ;;
    *) say "not requeued from here: Slurm is ending it" ;;
    esac
    return 1
}
