#!/usr/bin/env bash
# A sweep on Slurm: one Ray node on each of the job's machines, the driver on the first.
#     sbatch docs/cluster/slurm.sh search_spaces/ablations.yaml --yes
# All arguments go to run_sweep.py. Submit it again to resume the sweep; Slurm also requeues it when
# its time is up. Edit the lines marked CHANGE.
#SBATCH --job-name=ibc-sweep
#SBATCH --nodes=2            # CHANGE
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=2    # CHANGE: CPUs of each machine for trials
#SBATCH --time=24:00:00      # CHANGE
#SBATCH --requeue
#SBATCH --signal=B:TERM@120  # two minutes before the end: the sweep stops cleanly
# For GPUs: #SBATCH --gpus-per-node=1, and --gpus-per-trial 0.25 after the script's name.
set -euo pipefail

# CHANGE: the repository with its .venv, on a file system that all machines share.
repository=${IBC_HARNESS_REPOSITORY:-$SLURM_SUBMIT_DIR}
# CHANGE: results on the shared file system, or s3://bucket/prefix.
results=${IBC_HARNESS_RESULTS:-$repository/results}
python=$repository/.venv/bin/python
ray=$repository/.venv/bin/ray

export RAY_USAGE_STATS_ENABLED=0 OMP_WAIT_POLICY=PASSIVE
# A token for this job only: other users of these machines cannot submit code to its Ray.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$repository/.ray-token-$SLURM_JOB_ID
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
# Jobs that share a machine must not share a port.
port=$((20000 + SLURM_JOB_ID % 20000))
gpus=${SLURM_GPUS_ON_NODE:-0}
started=()

finish() {
    trap - EXIT TERM
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    rm -f "$RAY_AUTH_TOKEN_PATH"
}
trap finish EXIT

start_ray() { # start_ray MACHINE OPTION...: in the background until the job ends
    local machine=$1
    shift
    srun --nodes=1 --ntasks=1 --overlap -w "$machine" "$ray" start --block \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" "$@" >/dev/null &
    started+=($!)
}

start_ray "$head" --head --port="$port" --include-dashboard=false
until "$ray" health-check --address "$head:$port" >/dev/null 2>&1; do
    kill -0 "${started[0]}" || { echo "Ray did not start on $head" >&2; exit 1; }
    sleep 2
done
for machine in "${nodes[@]:1}"; do
    start_ray "$machine" --address="$head:$port"
done

"$python" "$repository/run_sweep.py" "$@" --address "$head:$port" --results "$results" &
driver=$!
# Slurm sends TERM to this shell: pass it on, and wait until the sweep has stopped.
trap 'kill -TERM "$driver"; wait "$driver"; exit $?' TERM
wait "$driver"
