#!/usr/bin/env bash
# Serves a run on Kubernetes: as a KServe InferenceService, or as a Deployment with a Service and an autoscaler.
#
#   bash launch/serve.sh kserve --image=REGISTRY/tessera:0.2 --name=digits --storage_uri=gs://BUCKET/runs/digits \
#       [--prometheus=http://prometheus.monitoring:9090] [FLAGS] [--dry_run] [-- FLAGS OF launch.serve]
#   bash launch/serve.sh plain --image=REGISTRY/tessera:0.2 --name=digits --claim=runs --folder=digits \
#       [FLAGS] [--dry_run] [-- FLAGS OF launch.serve]
#
# launch/Dockerfile makes the image. kserve copies the run from --storage_uri; plain mounts the volume claim --claim,
# in which the run is the folder --folder. Pods are added while more than --queue=4 requests wait in each, from --min=1
# to --max=1: kserve reads this from --prometheus by KEDA, plain from a Prometheus adapter.
#
# FLAGS: --token_secret=SECRET (its key 'token' is what clients send; without it --anonymous must be given), --cpus=2,
# --memory=4Gi, --gpus=0, or --chips=1 --accelerator=tpu-v5-lite-podslice --topology=1x1, --hosts=A,B (names by which
# clients reach the server, beside those of the cluster), --namespace=default, --startup=600 (seconds until ready).
# --dry_run prints the manifests (launch/kserve.yaml or launch/deployment.yaml filled in) instead of applying them.
# shellcheck disable=SC2034  # the manifest is filled in from variables by name
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1-} name='' image='' storage_uri='' claim='' folder='' prometheus='' token_secret='' anonymous='' hosts=''
namespace=default min=1 max=1 queue=4 cpus=2 memory=4Gi gpus=0 chips=0 accelerator='' topology='' startup=600
dry_run='' serve=()

die() { echo "serve: $1" >&2; exit 1; }

case $kind in
  kserve | plain) shift ;;
  *) die 'the first word is kserve or plain; the head of launch/serve.sh lists the flags' ;;
esac
while (($#)); do
  case "$1" in
    --name=* | --image=* | --storage_uri=* | --claim=* | --folder=* | --prometheus=* | --token_secret=* | --hosts=* | \
      --namespace=* | --min=* | --max=* | --queue=* | --cpus=* | --memory=* | --gpus=* | --chips=* | --accelerator=* | \
      --topology=* | --startup=*)
      flag=${1%%=*}
      printf -v "${flag#--}" '%s' "${1#*=}"
      ;;
    --anonymous) anonymous=1 ;;
    --dry_run) dry_run=1 ;;
    --) shift; serve=("$@"); break ;;
    *) die "unknown flag $1; the head of launch/serve.sh lists them (flags of launch.serve follow --)" ;;
  esac
  shift
done
[[ -n $image ]] || die '--image is missing: an image of launch/Dockerfile'
[[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] || die '--name is missing or not made of at most 40 of a-z, 0-9 and -'
for number in min max queue gpus chips startup; do
  [[ ${!number} =~ ^[0-9]{1,6}$ ]] || die "--$number=${!number} is not a whole number"
done
((min >= 1 && max >= min)) || die "--min=$min --max=$max: at least one pod, and no fewer at most than at least"
[[ -n $token_secret || -n $anonymous ]] || die 'clients need a token: give --token_secret=SECRET, or --anonymous'
[[ -z $token_secret || -z $anonymous ]] || die '--token_secret and --anonymous exclude each other'
((chips == 0)) || [[ -n $accelerator && -n $topology ]] || die '--chips goes with --accelerator and --topology'
if [[ $kind == kserve ]]; then
  [[ -n $storage_uri ]] || die '--storage_uri is missing: where the run is, gs://, s3:// or pvc://'
  [[ -z $claim && -z $folder ]] || die '--claim and --folder are of plain; kserve reads --storage_uri=pvc://CLAIM/FOLDER'
  ((max == min)) || [[ -n $prometheus ]] || die '--max needs --prometheus=URL, which knows how many requests wait'
else
  [[ -n $claim ]] || die '--claim is missing: the volume claim that contains the run'
  [[ -z $storage_uri && -z $prometheus ]] || die '--storage_uri and --prometheus are of kserve'
fi
[[ -n $dry_run ]] || command -v kubectl >/dev/null || die 'kubectl is not installed'

quoted() {  # JSON strings are YAML strings
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}
listed() {
  local text='' item
  for item in "$@"; do text+="${text:+, }$(quoted "$item")"; done
  printf '%s' "$text"
}

workdir=/mnt/models service=$name
[[ $kind == kserve ]] && service=$name-predictor || workdir+=/$folder
names=localhost
for inside in "$service" "$service.$namespace" "$service.$namespace.svc" "$service.$namespace.svc.cluster.local"; do
  names+=,$inside
done
flags=(--workdir="$name=${workdir%/}" --allowed_hosts="$names${hosts:+,$hosts}")
[[ -z $anonymous ]] || flags+=(--allow_anonymous)
arguments=$(listed "${flags[@]}" "${serve[@]}")

environment=[]
if [[ -n $token_secret ]]; then
  source="secretKeyRef: {name: $(quoted "$token_secret"), key: token}"
  environment="[{name: TESSERA_TOKEN, valueFrom: {$source}}]"
fi
accelerators=''
((gpus == 0)) || accelerators+=", nvidia.com/gpu: \"$gpus\""
((chips == 0)) || accelerators+=", google.com/tpu: \"$chips\""
requests="{cpu: $(quoted "$cpus"), memory: $(quoted "$memory")$accelerators}"
limits="{memory: $(quoted "$memory")$accelerators}"  # no limit of cpu: throttled, all requests would wait
selector={}
if ((chips)); then
  selector="{cloud.google.com/gke-tpu-accelerator: $(quoted "$accelerator")"
  selector+=", cloud.google.com/gke-tpu-topology: $(quoted "$topology")}"
fi
autoscaler=none scaling='# --max is --min: no scaler'
if [[ -n $prometheus ]]; then
  autoscaler=keda
  metric="{backend: prometheus, serverAddress: $(quoted "$prometheus")"
  metric+=", query: $(quoted "sum(tessera_queue_requests{model=\"$name\"})")}"
  target="{type: Value, value: \"$queue\"}"  # in each pod: KServe passes it to KEDA as an average
  scaling="autoScaling: {metrics: [{type: External, external: {metric: $metric, target: $target}}]}"
fi
startup=$(((startup + 4) / 5))
image=$(quoted "$image") storage_uri=$(quoted "$storage_uri") claim=$(quoted "$claim")

file=launch/deployment.yaml
[[ $kind == plain ]] || file=launch/kserve.yaml
manifest=$(<"$file")
for key in name image storage_uri claim arguments environment requests limits selector autoscaler scaling min max queue \
  startup; do
  manifest=${manifest//"{$key}"/"${!key}"}
done
if [[ -n $dry_run ]]; then echo "$manifest"; else echo "$manifest" | kubectl apply --namespace="$namespace" -f -; fi
