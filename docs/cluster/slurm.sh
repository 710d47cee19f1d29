#!/bin/bash
# A Ray cluster inside one SLURM allocation, and a matrix on it: sbatch slurm.sh matrix.toml
#SBATCH --job-name=privbench
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:INT@120

set -euo pipefail
set -m # or bash would have its background commands ignore Ctrl-C
matrix=${1:?usage: sbatch slurm.sh MATRIX.toml}

# Folders that every node sees under these names, and the environment that privbench[ray] is installed in.
export PRIVBENCH_STORE=${PRIVBENCH_STORE:-$SCRATCH/privbench/store}
export PRIVBENCH_RESULTS=${PRIVBENCH_RESULTS:-$SCRATCH/privbench/results}
export PRIVBENCH_DATA=${PRIVBENCH_DATA:-$SCRATCH/privbench/data}
export RAY_USAGE_STATS_ENABLED=0
# Who does not know this job's token cannot use its cluster.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
source "${VENV:-$HOME/privbench/bin}/activate"

gpus=${SLURM_GPUS_ON_NODE:-0}
port=$((20000 + SLURM_JOB_ID % 20000))
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname --ip-address | awk '{print $1}')

# `--block` keeps ray in the foreground of its step, so that SLURM ends it with the job.
srun --nodes=1 --ntasks=1 -w "$head" --overlap \
    ray start --head --node-ip-address="$address" --port="$port" \
    --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --include-dashboard=false --block &
until ray health-check --address "$address:$port" 2>/dev/null; do sleep 2; done

if ((${#nodes[@]} > 1)); then
    srun --nodes=$((${#nodes[@]} - 1)) --ntasks=$((${#nodes[@]} - 1)) --exclude="$head" --overlap \
        ray start --address="$address:$port" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --block &
fi

# The signal that SLURM sends two minutes before the end is Ctrl-C: stages keep their checkpoints, and the same sbatch
# line goes on. The command runs in the background because bash handles signals only between commands.
trap 'kill -INT "$!"' INT TERM
privbench run "$matrix" --runner ray --address "$address:$port" &
run=$!
code=0
wait "$run" || code=$?
if kill -0 "$run" 2>/dev/null; then
    code=0
    wait "$run" || code=$?
fi
exit "$code"
