"""What the cluster scripts would do, and what they do when a machine is taken away."""

import os
import pathlib
import stat
import subprocess

import yaml
from contract import ROOT

TRAIN = ['--', '--config=configs/python_lm.py', '--config.task.check=a "b" &\\c']


def shell(script: str, *flags: str, path: pathlib.Path | None = None) -> subprocess.CompletedProcess:
    environment = {**os.environ, 'PATH': f'{path}:{os.environ["PATH"]}' if path else os.environ['PATH']}
    return subprocess.run(
        ['bash', f'launch/{script}', *flags], cwd=ROOT, text=True, capture_output=True, env=environment, timeout=60
    )


def test_tpu_vm_dry_run_prints_every_step():
    flags = ['--name=x', '--zone=z', '--type=v4-8', '--workdir=gs://bucket/runs/lm', '--spot', '--queued', '--dry_run']
    done = shell('tpu_vm.sh', *flags, *TRAIN)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    verbs = [
        'queued-resources create',
        'git archive',
        'tpu-vm scp',
        '-e',
        'launch.train',
        'storage cp',
        'delete',
        'report',
    ]
    positions = [next(i for i, line in enumerate(lines) if verb in line) for verb in verbs]
    assert positions == sorted(positions)
    create = lines[positions[0]]
    assert '--spot' in create and '--accelerator-type=v4-8' in create and '--node-id=x' in create
    assert '--worker=all' in lines[positions[4]] and '--workdir=gs://bucket/runs/lm' in lines[positions[4]]
    assert lines[-1] == 'report: runs/lm/report.html'


def test_tpu_vm_goes_on_after_a_preemption(tmp_path):
    """A stand-in for gcloud keeps a machine in files; its first training ends with the machine taken away."""
    gcloud = tmp_path / 'gcloud'
    gcloud.write_text(f"""#!/usr/bin/env bash
cd {tmp_path}
echo "$*" >> calls
case "$*" in
  *describe*) if [[ -e state ]]; then cat state; else exit 1; fi ;;
  *"tpu-vm create"*) echo READY > state ;;
  *delete*) rm state ;;
  *launch.train*) if [[ ! -e once ]]; then touch once; echo PREEMPTED > state; exit 1; fi ;;
esac
""")
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IEXEC)
    flags = ['--name=x', '--zone=z', '--type=v4-8', '--workdir=gs://bucket/tessera_test_run', *TRAIN]
    done = shell('tpu_vm.sh', *flags, path=tmp_path)
    assert done.returncode == 0, done.stderr
    calls = (tmp_path / 'calls').read_text().splitlines()
    kinds = [next((v for v in ('tpu-vm create', 'delete', 'launch.train', 'storage cp') if v in c), '') for c in calls]
    assert [kind for kind in kinds if kind] == [
        'tpu-vm create',
        'launch.train',
        'delete',
        'tpu-vm create',
        'launch.train',
        'storage cp',
        'delete',
    ]
    assert 'PREEMPTED' in done.stderr


def test_tpu_vm_leaves_a_machine_on_which_the_training_itself_failed(tmp_path):
    gcloud = tmp_path / 'gcloud'
    gcloud.write_text('#!/usr/bin/env bash\ncase "$*" in *describe*) echo READY ;; *launch.train*) exit 1 ;; esac\n')
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IEXEC)
    done = shell('tpu_vm.sh', '--zone=z', '--type=v4-8', '--workdir=gs://b/r', *TRAIN, path=tmp_path)
    assert done.returncode == 1 and 'failed on a healthy machine' in done.stderr


def test_slurm_dry_run_prints_a_job_that_bash_accepts(tmp_path):
    flags = ['--nodes=2', '--gpus=8', '--partition=p', '--dry_run', *TRAIN, '--workdir=runs/lm']
    done = shell('slurm.sh', *flags)
    job = tmp_path / 'job.sh'
    job.write_text(done.stdout)
    assert done.returncode == 0 and subprocess.run(['bash', '-n', str(job)]).returncode == 0
    for words in (
        '--nodes=2',
        '--ntasks-per-node=1',
        '--gpus-per-node=8',
        '--partition=p',
        '--requeue',
        '--signal=B:USR1@120',
        'srun',
        'launch.train --config=configs/python_lm.py',
        'scontrol requeue',
    ):
        assert words in done.stdout, words


def test_kubernetes_dry_run_is_a_whole_manifest():
    flags = ['--image=i:1', '--hosts=4', '--accelerator=a', '--topology=4x4', '--dry_run', *TRAIN, '--workdir=gs://b/r']
    done = shell('kubernetes.sh', *flags)
    manifest = yaml.safe_load(done.stdout)
    job = manifest['spec']['replicatedJobs'][0]['template']['spec']
    container = job['template']['spec']['containers'][0]
    assert manifest['kind'] == 'JobSet' and job['parallelism'] == job['completions'] == 4
    assert container['command'] == ['python', '-m', 'launch.train']
    assert container['args'] == [*TRAIN[1:], '--workdir=gs://b/r']
    assert (
        container['resources']['limits'] == {'google.com/tpu': 4}
        and '{' not in str(manifest['spec']['failurePolicy'])[1:]
    )


def test_missing_flags_are_named():
    for script, flags, words in (
        ('tpu_vm.sh', ['--type=v4-8', *TRAIN], '--zone is missing'),
        ('tpu_vm.sh', ['--zone=z', '--type=t', '--workdir=w'], 'no config'),
        ('tpu_vm.sh', ['--zon=z'], 'unknown flag --zon=z'),
        ('slurm.sh', [*TRAIN], 'no --workdir'),
        ('kubernetes.sh', [*TRAIN], '--image is missing'),
    ):
        done = shell(script, *flags)
        assert done.returncode == 1 and words in done.stderr, (script, done.stderr)
