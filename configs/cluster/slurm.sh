#!/usr/bin/env bash
#SBATCH --job-name=tfadv
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# The training receives SIGTERM two minutes before the time is up, as it does before a
# preemption, writes a checkpoint and ends; the job then queues again (below).
#SBATCH --signal=TERM@120
# GPUs, one worker a node with all of them: #SBATCH --gpus-per-node=4
#
#   sbatch configs/cluster/slurm.sh /shared/runs/kurakin --method=kurakin
#
# WORKDIR must be on a disk that all nodes share. TF_CONFIG comes from scontrol and not
# from TensorFlow's SlurmClusterResolver. That sorts the nodes as text (n10 before n2)
# where SLURM numbers tasks in the order of the list, so that addresses and tasks do not
# agree; it asks nvidia-smi, which nodes without GPUs lack; and it takes an empty
# CUDA_VISIBLE_DEVICES for one GPU.
set -u
export PORT=${PORT:-12345}
export CLUSTER=${SLURM_SUBMIT_DIR:-$PWD}/configs/cluster

srun --kill-on-bad-exit=1 bash -c '
  set -eu
  workers=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | sed "s/.*/\"&:$PORT\"/" | paste -sd, -)
  export TF_CONFIG="{\"cluster\": {\"worker\": [$workers]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  exec "$CLUSTER/worker.sh" "$@"
' worker "$@"
code=$?
# SLURM itself queues a preempted job again; one whose time is up must ask.
if [ "$code" -gt 128 ] && [ ! -e "$1/results.json" ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
