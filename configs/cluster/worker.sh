#!/usr/bin/env bash
# One worker of a training, started again until the training has ended.
#   TF_CONFIG=... worker.sh WORKDIR FLAGS...
# runs bin/train --strategy=multi_worker --workdir=WORKDIR FLAGS... . A worker that is
# lost ends all others with exit code 3; each starts again here and they meet again.
#
# SIGTERM ends the loop after the training has written its checkpoint. With FORWARD=1 it
# is passed on to the training: where only this shell receives it (Kubernetes, systemd
# with KillMode=mixed), but not where every process does (SLURM, Ctrl-C), because a
# second signal ends a training at once.
set -u
workdir=$1
shift
train=${TRAIN:-$(cd "$(dirname "$0")/../.." && pwd)/bin/train}
pause=${PAUSE:-10}
stop=
child=
trap 'stop=1; if [ -n "${FORWARD:-}" ] && [ -n "$child" ]; then kill -TERM "$child"; fi' TERM
until [ -e "$workdir/results.json" ]; do
  "$train" --strategy=multi_worker --workdir="$workdir" "$@" &
  child=$!
  wait "$child"
  code=$?
  # A signal to this shell ends `wait` early.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    code=$?
  done
  child=
  # 1 and 2: it cannot be carried out, or is wrong, and would be again.
  if [ "$code" -eq 1 ] || [ "$code" -eq 2 ]; then exit "$code"; fi
  # Not 0, which would say that the training has ended.
  if [ -n "$stop" ]; then exit 143; fi
  if [ ! -e "$workdir/results.json" ]; then sleep "$pause"; fi
done
