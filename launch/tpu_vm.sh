#!/usr/bin/env bash
# Trains on a Cloud TPU: creates it, installs, runs on every host, starts again after a preemption, brings the run back.
#
#   bash launch/tpu_vm.sh --name=tessera --zone=us-central2-b --type=v4-32 --workdir=gs://BUCKET/runs/lm \
#       [--spot] [--queued] [--keep] [--dry_run] -- --config=configs/python_lm.py --config.mesh.fsdp=8
#
# What follows -- goes to launch.train. The work folder should lie in gs://, so that a preempted run goes on where it
# was; with a local one a new machine starts anew. --queued waits for capacity, --spot takes what may be preempted,
# --keep leaves the machine running at the end. Needs gcloud, logged in. --dry_run prints the commands instead.
set -euo pipefail
cd "$(dirname "$0")/.."

name=tessera zone= type= version=tpu-ubuntu2204-base workdir= project= tries=20
spot=() queued= keep= dry_run= train=()

die() { echo "tpu_vm: $1" >&2; exit 1; }

while (($#)); do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --tries=*) tries=${1#*=} ;;
    --spot) spot=(--spot) ;;
    --queued) queued=1 ;;
    --keep) keep=1 ;;
    --dry_run) dry_run=1 ;;
    --) shift; train=("$@"); break ;;
    *) die "unknown flag $1; the head of launch/tpu_vm.sh lists them (flags of launch.train follow --)" ;;
  esac
  shift
done
[[ -n $zone ]] || die '--zone is missing, for example --zone=us-central2-b'
[[ -n $type ]] || die '--type is missing, for example --type=v4-32'
[[ -n $workdir ]] || die '--workdir is missing, for example --workdir=gs://BUCKET/runs/NAME'
[[ " ${train[*]-} " == *" --config="* ]] || die 'no config: end the command with -- --config=configs/X.py'
[[ -n $dry_run ]] || command -v gcloud >/dev/null || die 'gcloud is not installed: https://cloud.google.com/sdk'

place=(--zone="$zone" ${project:+--project="$project"})

run() {  # runs a command, or prints it so that a shell could
  if [[ -n $dry_run ]]; then printf '%q ' "$@"; echo; else "$@"; fi
}

state() {
  [[ -z $dry_run ]] || { echo READY; return; }
  gcloud compute tpus tpu-vm describe "$name" "${place[@]}" --format='value(state)' 2>/dev/null || echo ABSENT
}

on_all() { run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker=all --command="$1"; }

create() {
  if [[ -n $queued ]]; then
    run gcloud compute tpus queued-resources create "$name" "${place[@]}" --node-id="$name" \
      --accelerator-type="$type" --runtime-version="$version" ${spot[@]+"${spot[@]}"}
    until [[ $(state) == READY ]]; do sleep 30; done
  else
    run gcloud compute tpus tpu-vm create "$name" "${place[@]}" --accelerator-type="$type" \
      --version="$version" ${spot[@]+"${spot[@]}"}
  fi
}

remove() {
  if [[ -n $queued ]]; then
    run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet
  else
    run gcloud compute tpus tpu-vm delete "$name" "${place[@]}" --quiet
  fi
}

install() {  # the images have an older Python, so uv brings one
  local archive
  archive=$(mktemp -u).tar.gz
  run git archive --format=tar.gz --output="$archive" HEAD
  run gcloud compute tpus tpu-vm scp "$archive" "$name:tessera.tar.gz" "${place[@]}" --worker=all
  on_all "mkdir -p tessera && tar -xzf tessera.tar.gz -C tessera && python3 -m pip install --quiet --user uv && \
cd tessera && ~/.local/bin/uv venv --quiet --allow-existing --python 3.12 .venv && \
~/.local/bin/uv pip install --quiet --python .venv/bin/python -e '.[tpu]'"
}

printf -v flags '%q ' --workdir="$workdir" "${train[@]}"
command="cd tessera && .venv/bin/python -m launch.train $flags"

done=
for ((try = 1; try <= tries; try++)); do
  present=$(state)
  if [[ $present != READY && $present != ABSENT ]]; then remove; present=ABSENT; fi  # PREEMPTED, TERMINATED, ...
  if [[ $present == ABSENT || -n $dry_run ]]; then create && install || { sleep 30; continue; }; fi
  if on_all "$command"; then done=1; break; fi
  present=$(state)
  [[ $present != READY ]] || die "the training failed on a healthy machine (its message is above); $name is left running"
  echo "tpu_vm: $name is $present; trying again ($try of $tries), the run goes on from its last checkpoint" >&2
done
[[ -n $done ]] || die "gave up after $tries tries"

mkdir -p runs
if [[ $workdir == gs://* ]]; then
  run gcloud storage cp --recursive "$workdir" runs/
else
  run gcloud compute tpus tpu-vm scp --recurse "$name:tessera/$workdir" runs/ "${place[@]}" --worker=0
fi
[[ -n $keep ]] || remove
echo "report: runs/$(basename "$workdir")/report.html"
