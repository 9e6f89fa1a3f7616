#!/usr/bin/env bash
# Trains on a SLURM cluster, one process a node; asks again for time when the limit is near or a node was taken away.
#
#   bash launch/slurm.sh --nodes=2 --gpus=8 --time=04:00:00 [--partition=P] [--account=A] [--python=.venv/bin/python] \
#       [--dry_run] -- --config=configs/python_lm.py --workdir=runs/lm
#
# What follows -- goes to launch.train; the work folder must be seen by every node. Two minutes before the limit the
# run is asked to save, and the job is queued again until it is done. --dry_run prints the job instead of sending it.
set -euo pipefail
cd "$(dirname "$0")/.."

nodes=1 gpus=0 time=04:00:00 partition= account= python=.venv/bin/python dry_run= train=()

die() { echo "slurm: $1" >&2; exit 1; }

while (($#)); do
  case "$1" in
    --nodes=*) nodes=${1#*=} ;;
    --gpus=*) gpus=${1#*=} ;;
    --time=*) time=${1#*=} ;;
    --partition=*) partition=${1#*=} ;;
    --account=*) account=${1#*=} ;;
    --python=*) python=${1#*=} ;;
    --dry_run) dry_run=1 ;;
    --) shift; train=("$@"); break ;;
    *) die "unknown flag $1; the head of launch/slurm.sh lists them (flags of launch.train follow --)" ;;
  esac
  shift
done
[[ " ${train[*]-} " == *" --config="* ]] || die 'no config: end the command with -- --config=configs/X.py --workdir=...'
[[ " ${train[*]-} " == *" --workdir="* ]] || die 'no --workdir: name a folder that every node sees'
[[ -n $dry_run ]] || command -v sbatch >/dev/null || die 'sbatch is not here: run this on a login node of the cluster'

printf -v flags '%q ' "${train[@]}"
job() {
  cat <<JOB
#!/usr/bin/env bash
#SBATCH --job-name=tessera
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=1
#SBATCH --time=$time
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=tessera-%j.log
#SBATCH --signal=B:USR1@120
JOB
  [[ $gpus == 0 ]] || echo "#SBATCH --gpus-per-node=$gpus"
  [[ -z $partition ]] || echo "#SBATCH --partition=$partition"
  [[ -z $account ]] || echo "#SBATCH --account=$account"
  cat <<JOB
again() {  # the limit is near: every process saves and ends, then the job is queued again
  scancel --signal=TERM "\$SLURM_JOB_ID"
  wait "\$step"
  scontrol requeue "\$SLURM_JOB_ID"
  exit 0
}
trap again USR1
srun --kill-on-bad-exit=1 $python -m launch.train $flags &
step=\$!
wait "\$step"
JOB
}

if [[ -n $dry_run ]]; then job; else job | sbatch; fi
