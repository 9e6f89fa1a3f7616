"""Installs the project and trains three models with reports, using only Python.

    bash launch/quickstart.sh        or, without a shell:  python launch/quickstart.py

Creates a virtual environment, installs the project into it, trains a classifier, a GAN and a language model, and prints
the paths of their reports. Standard library only. Python 3.6 and later can parse this file, to print the requirements.
"""

import sys

if not (3, 11) <= tuple(sys.version_info[:2]) <= (3, 13):
    sys.exit(
        'quickstart: Tessera runs on Python 3.11, 3.12 and 3.13, and {} is Python {}.{}; install one of those and name '
        'it: PYTHON=/path/to/python3 bash launch/quickstart.sh'.format(sys.executable, *sys.version_info[:2])
    )

import argparse
import configparser
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = 'tessera.json'  # in the environment: the inputs of the installation
PROGRAM = 'Scripts/python.exe' if os.name == 'nt' else 'bin/python'  # in an environment
PYTHON = '{}.{}'.format(*sys.version_info)
RUNS = ('digits', 'digits_gan', 'python_lm')
GIGABYTES = {'': 1.6, 'cuda': 7, 'parity': 8, 'prepare': 3, 'test': 1}  # of the base and extras, with pip's downloads
NEXT = """  tessera predict --workdir=runs/python_lm --input="def read(path):"
  tessera predict --workdir=runs/digits_gan --count=16 --seed=1 --output=runs/samples
  tessera evaluate --workdir=runs/digits --split=test
  tessera train --config=configs/digits.py --workdir=runs/digits_seed1 --config.seed=1"""
FAILURES = {  # pattern in pip's output -> message
    r'No space left on device|Errno 28\b|Disk quota exceeded|not enough space on the disk':
        'the disk is full; free some space and run the same command again',
    r'NewConnection|[Tt]imed? ?out|[Nn]ame resolution|not known|Max retries|Connection (refused|reset|broken|aborted)|'
    r'ProxyError|SSLError|Network is unreachable': 'the package index cannot be reached; check the network, or name an '
        'index or a proxy with PIP_INDEX_URL or PIP_PROXY, and run the same command again',
    r'No matching distribution': 'the package index lacks a package for this Python and system; try another Python of '
        '3.11 to 3.13, or another index with PIP_INDEX_URL',
}  # fmt: skip


class Stop(Exception):
    """Ends the program with one sentence on the problem and its solution."""


def call(command, log=None):
    """Runs `command` in the repository and returns its exit code; on an interrupt, waits until the child has saved."""
    output = {'stdin': subprocess.DEVNULL, 'stdout': log, 'stderr': log and subprocess.STDOUT}
    child = subprocess.Popen(command, cwd=ROOT, env={**os.environ, 'PYTHONUNBUFFERED': '1'}, **output)
    try:
        return child.wait()
    except KeyboardInterrupt:
        child.wait(timeout=60)  # the terminal also interrupted the child
        raise
    finally:
        child.terminate()  # does nothing if it has ended
        child.wait()


def version_of(venv):
    """The Python version of an environment; '' if it does not run or has no pip."""
    command = [str(venv / PROGRAM), '-I', '-c', 'import sys, pip; print("{}.{}".format(*sys.version_info))']
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ''


def check_disk(venv, extras):
    """Raises `Stop` if the disk is too full; updating an existing environment needs little space."""
    needed = sum(GIGABYTES.get(name, 0) for name in ('', *extras)) * (0.2 if version_of(venv) else 1)
    for folder, otherwise in ((venv, '--venv=PATH'), (Path(tempfile.gettempdir()), 'TMPDIR')):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free / 10**9
        if free < needed:
            raise Stop(
                f'the disk is too full: the installation needs {needed:.1f} GB at {existing} and {free:.1f} GB are '
                f'free; free some, or name a folder on another disk with {otherwise}'
            )


def make_environment(venv, stamp):
    """Creates the virtual environment, or keeps one of this Python version; another folder of the user is an error."""
    version, moved = version_of(venv), stamp.get('environment', str(venv)) != str(venv)  # scripts hold the old path
    if version == PYTHON and not moved:
        return
    if not stamp.get('made') and venv.exists() and (not venv.is_dir() or any(venv.iterdir())):
        state = f'an environment of Python {version}' if version else 'not a working environment'
        raise Stop(f'{venv} exists and is {state}; remove it, or choose another folder with --venv=PATH')
    venv.mkdir(parents=True, exist_ok=True)
    stamp.update(made=True, complete=False)
    (venv / STAMP).write_text(json.dumps(stamp))  # marks an interrupted attempt
    for entry in venv.iterdir():
        if entry.name != STAMP:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if call([sys.executable, '-I', '-m', 'venv', str(venv)]):
        raise Stop(
            f'{sys.executable} -m venv {venv} failed: see above. If the module venv is missing, install it (Debian: '
            'apt install python3-venv), or name another Python: PYTHON=/path/to/python3 bash launch/quickstart.sh'
        )


def set_up(venv, extras):
    """Creates the environment and installs the project in editable mode, unless complete; pip writes install.log."""
    started = time.monotonic()
    try:
        stamp = dict(json.loads((venv / STAMP).read_text()))
    except (OSError, ValueError, TypeError):  # missing or damaged
        stamp = {}
    files = [ROOT / name for name in ('setup.cfg', 'setup.py', 'pyproject.toml')]
    metadata = hashlib.sha256(b''.join(file.read_bytes() for file in files if file.exists())).hexdigest()
    inputs = {'metadata': metadata, 'python': PYTHON, 'project': str(ROOT), 'environment': str(venv)}
    extras = sorted(extras | set(stamp.get('extras', [])))
    if {**stamp, **inputs, 'extras': extras, 'complete': True} == stamp and version_of(venv) == PYTHON:
        return print(f'{venv} is complete: nothing to install', flush=True)
    check_disk(venv, extras)
    make_environment(venv, stamp)
    stamp.update(inputs, extras=extras, complete=False)
    (venv / STAMP).write_text(json.dumps(stamp))
    print(f'installing into {venv}: about 1.1 GB, one to five minutes ...', flush=True)
    target, log = str(ROOT) + (f'[{",".join(extras)}]' if extras else ''), venv / 'install.log'
    with log.open('wb') as file:
        failed = call([str(venv / PROGRAM), '-m', 'pip', 'install', '--no-input', '--editable', target], file)
    if failed:
        output = log.read_text(encoding='utf-8', errors='replace')
        error = (re.findall(r'(?mi)^ *error: *(.*)', output) or ['it gave no reason'])[-1]
        raise Stop(f'{reason(output) or "pip could not install the project: " + error} (output of pip: {log})')
    (venv / STAMP).write_text(json.dumps({**stamp, 'complete': True}))
    print(f'installed in {time.monotonic() - started:.0f} s', flush=True)


def reason(output):
    """The sentence on a known failure in an output; '' for another."""
    return next((sentence for pattern, sentence in FAILURES.items() if re.search(pattern, output)), '')


def train_all(venv):
    """Trains and reports the three models, lets the classifier judge the GAN's digits, prints what to do next."""
    programs = [f'train --config=configs/{name}.py --workdir=runs/{name}' for name in RUNS]
    programs.append('classify_samples --generator=runs/digits_gan --classifier=runs/digits --count=1000')
    for number, program in enumerate(programs, 1):
        started = time.monotonic()
        print(f'\n[{number}/{len(programs)}] python -m launch.{program}', flush=True)
        code = call([str(venv / PROGRAM), '-m', *f'launch.{program}'.split()])
        if code:
            raise Stop(f'launch.{program.split()[0]} ended with code {code}: see above; the same command resumes there')
        print(f'[{number}/{len(programs)}] {time.monotonic() - started:.0f} s', flush=True)
    activate = f'{venv}\\Scripts\\activate' if os.name == 'nt' else f'source {venv}/bin/activate'
    reports = '\n'.join(f'  {ROOT / "runs" / name / "report.html"}' for name in RUNS)
    print(f'\nReports, to open in a browser:\n{reports}\n\nNext, in {ROOT}:\n  {activate}\n{NEXT}')


def read_arguments():
    """Parses the flags: `setup_only`, `extras` (a set) and `venv` (an absolute path)."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / 'setup.cfg', encoding='utf-8')
    known = ', '.join(sorted(setup['options.extras_require']))
    parser = argparse.ArgumentParser(prog='quickstart', description=str(__doc__).split('\n')[0], allow_abbrev=False)
    parser.add_argument('--setup_only', action='store_true', help='only create the environment')
    parser.add_argument('--extras', default='', help=f'extras to install, as in a,b: {known}')
    parser.add_argument(
        '--venv', default=os.environ.get('TESSERA_VENV'), help='folder of the environment; TESSERA_VENV, or .venv'
    )
    options = parser.parse_args()
    options.extras = set(re.findall(r'[^,\s]+', options.extras))
    options.venv = Path(os.path.abspath(os.path.expanduser(options.venv or ROOT / '.venv')))
    unknown = options.extras - set(known.split(', '))
    if unknown:
        raise Stop(f'there is no extra {", ".join(sorted(unknown))}; choose from {known}')
    return options


def main():
    """Runs the program; returns its exit code, and prints one sentence to stderr if it is not 0."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are terminated too
    try:
        options = read_arguments()
        set_up(options.venv, options.extras)
        if not options.setup_only:
            train_all(options.venv)
    except (KeyboardInterrupt, subprocess.TimeoutExpired):
        print('\nquickstart: interrupted; the same command resumes from here', file=sys.stderr)
        return 130
    except (Stop, OSError) as error:
        print(f'quickstart: {error if isinstance(error, Stop) else reason(str(error)) or error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
