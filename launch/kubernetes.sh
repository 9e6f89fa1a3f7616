#!/usr/bin/env bash
# Trains on Kubernetes as a JobSet, one pod a host; a pod that fails or is preempted restarts the set, which resumes.
#
#   bash launch/kubernetes.sh --image=REGISTRY/tessera:0.1 --hosts=4 --accelerator=tpu-v5-lite-podslice --topology=4x4 \
#       --chips=4 [--name=tessera] [--restarts=20] [--dry_run] -- --config=configs/python_lm.py --workdir=gs://BUCKET/lm
#
# What follows -- goes to launch.train; the work folder must be gs:// or a volume that every pod sees. The cluster needs
# the JobSet controller. --dry_run prints the manifest (launch/jobset.yaml filled in) instead of applying it.
set -euo pipefail
cd "$(dirname "$0")/.."

name=tessera image= hosts=1 accelerator= topology= chips=4 restarts=20 dry_run= train=()

die() { echo "kubernetes: $1" >&2; exit 1; }

while (($#)); do
  case "$1" in
    --name=*) name=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --hosts=*) hosts=${1#*=} ;;
    --accelerator=*) accelerator=${1#*=} ;;
    --topology=*) topology=${1#*=} ;;
    --chips=*) chips=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --dry_run) dry_run=1 ;;
    --) shift; train=("$@"); break ;;
    *) die "unknown flag $1; the head of launch/kubernetes.sh lists them (flags of launch.train follow --)" ;;
  esac
  shift
done
[[ -n $image ]] || die '--image is missing: an image with this project installed'
[[ -n $accelerator && -n $topology ]] || die '--accelerator and --topology are missing, as the node pool has them'
[[ " ${train[*]-} " == *" --config="* ]] || die 'no config: end the command with -- --config=configs/X.py --workdir=...'
[[ " ${train[*]-} " == *" --workdir="* ]] || die 'no --workdir: name a gs:// folder or a volume that every pod sees'
[[ -n $dry_run ]] || command -v kubectl >/dev/null || die 'kubectl is not installed'

arguments=
for each in "${train[@]}"; do  # JSON strings are YAML strings
  each=${each//\\/\\\\}
  arguments+="${arguments:+, }\"${each//\"/\\\"}\""
done
manifest=$(<launch/jobset.yaml)
for key in name image hosts accelerator topology chips restarts arguments; do
  manifest=${manifest//"{$key}"/"${!key}"}
done
if [[ -n $dry_run ]]; then echo "$manifest"; else echo "$manifest" | kubectl apply -f -; fi
