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
import contextlib
import errno
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
RUNS = ('digits', 'digits_gan', 'python_lm')
GIGABYTE = 10**9
VENV_BYTES = 1.6 * GIGABYTE  # of the environment and pip's downloads
EXTRA_BYTES = {'cuda': 7 * GIGABYTE, 'parity': 8 * GIGABYTE, 'prepare': 3 * GIGABYTE, 'test': GIGABYTE}
FAILURES = {  # pattern in pip's output -> message
    r'No space left on device|Errno 28\b|Disk quota exceeded|not enough space on the disk': 'the disk is full; free '
    'some space and run the same command again',
    r'NewConnectionError|ConnectTimeout|Read timed out|[Nn]ame resolution|Name or service not known|Max retries '
    r'exceeded|Connection (refused|reset|broken|aborted)|ProxyError|SSLError|Network is unreachable': 'the package '
    'index cannot be reached; check the network, or name an index or a proxy with PIP_INDEX_URL or PIP_PROXY, and run '
    'the same command again',
    r'No matching distribution found for': 'the package index lacks a package for this Python and system; try another '
    'Python of 3.11 to 3.13, or another index with PIP_INDEX_URL',
}


class Stop(Exception):
    """Ends the program with one sentence on the problem and its solution."""


def call(command, log=None):
    """Runs `command` in the repository, with its output in the file `log` or on the terminal; returns its exit code.

    On an interrupt, waits until the child has saved and exited.
    """
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log and subprocess.STDOUT
    )
    try:
        return child.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=60)  # the terminal also interrupted the child
        raise
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def python_of(venv):
    """The interpreter of an environment."""
    return venv / 'Scripts' / 'python.exe' if os.name == 'nt' else venv / 'bin' / 'python'


def fingerprint(venv):
    """Inputs of an environment: the metadata files, the Python version, the two folders."""
    files = [ROOT / name for name in ('setup.cfg', 'setup.py', 'pyproject.toml')]
    content = b''.join(file.read_bytes() for file in files if file.exists())
    return {
        'metadata': hashlib.sha256(content).hexdigest(),
        'python': '{}.{}'.format(*sys.version_info),
        'project': str(ROOT),
        'environment': str(venv),
    }


def read_stamp(venv):
    """Reads the stamp of an environment; {} if missing or unreadable."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv, stamp):
    """Writes the stamp of an environment atomically."""
    venv.mkdir(parents=True, exist_ok=True)
    partial = venv / (STAMP + '.partial')
    partial.write_text(json.dumps(stamp, indent=2), encoding='utf-8')
    partial.replace(venv / STAMP)


def version_of(venv):
    """The Python version of an environment; '' if it does not run or has no pip."""
    program = 'import sys, pip; print("{}.{}".format(*sys.version_info))'
    try:
        done = subprocess.run([str(python_of(venv)), '-I', '-c', program], capture_output=True, text=True)
    except OSError:
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''


def is_complete(venv, extras):
    """Whether the environment is installed from these files, has these extras, and runs."""
    stamp = read_stamp(venv)
    same = all(stamp.get(key) == value for key, value in fingerprint(venv).items())
    return bool(same and stamp.get('complete') and extras <= set(stamp['extras']) and version_of(venv))


def check_disk(venv, extras):
    """Raises `Stop` if the disk is too full; updating an existing environment needs little space."""
    needed = VENV_BYTES + sum(EXTRA_BYTES.get(name, 0) for name in extras)
    needed *= 0.2 if version_of(venv) else 1
    for folder, otherwise in ((venv, '--venv=PATH'), (Path(tempfile.gettempdir()), 'TMPDIR')):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(existing).free
        if free < needed:
            raise Stop(
                f'the disk is too full: the installation needs {needed / GIGABYTE:.1f} GB at {existing} and '
                f'{free / GIGABYTE:.1f} GB are free; free some, or name a folder on another disk with {otherwise}'
            )


def make_environment(venv):
    """Creates the virtual environment, or keeps an existing one of this Python version.

    Raises `Stop` if the module venv is missing, or if `venv` exists but was not created by this program.
    """
    version, stamp = version_of(venv), read_stamp(venv)
    moved = stamp.get('environment', str(venv)) != str(venv)  # its scripts contain the old path
    if version == fingerprint(venv)['python'] and not moved:
        return
    if not stamp.get('made') and venv.exists() and (not venv.is_dir() or any(venv.iterdir())):
        state = f'an environment of Python {version}' if version else 'not a working environment'
        raise Stop(f'{venv} exists and is {state}; remove it, or choose another folder with --venv=PATH')
    try:
        import ensurepip  # noqa: F401
        import venv as _  # noqa: F401
    except ImportError:
        raise Stop(
            f'{sys.executable} has no module venv; install it (Debian: apt install python3-venv), or name another '
            'Python: PYTHON=/path/to/python3 bash launch/quickstart.sh'
        ) from None
    write_stamp(venv, {'made': True, 'extras': stamp.get('extras', [])})  # marks an interrupted attempt
    for entry in venv.iterdir():
        if entry.name != STAMP:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    if call([sys.executable, '-I', '-m', 'venv', str(venv)]):
        raise Stop(f'{sys.executable} -m venv {venv} failed: see above')


def install(venv, extras):
    """Installs the project in editable mode with `extras`; writes pip's output to install.log in the environment."""
    target = str(ROOT) + (f'[{",".join(sorted(extras))}]' if extras else '')
    log = venv / 'install.log'
    with log.open('wb') as file:
        code = call([str(python_of(venv)), '-m', 'pip', 'install', '--no-input', '--editable', target], file)
    if code:
        output = log.read_text(encoding='utf-8', errors='replace')
        reasons = (reason for pattern, reason in FAILURES.items() if re.search(pattern, output))
        errors = re.findall(r'(?mi)^ *error: *(.*)', output) or ['it gave no reason']
        raise Stop(f'{next(reasons, f"pip could not install the project: {errors[-1]}")} (output of pip: {log})')


def set_up(venv, extras):
    """Creates the environment and installs the project, unless complete."""
    if is_complete(venv, extras):
        print(f'{venv} is complete: nothing to install', flush=True)
        return
    extras = extras | set(read_stamp(venv).get('extras', []))
    check_disk(venv, extras)
    started = time.monotonic()
    make_environment(venv)
    stamp = {**fingerprint(venv), 'made': bool(read_stamp(venv).get('made')), 'extras': sorted(extras)}
    write_stamp(venv, {**stamp, 'complete': False})
    print(f'installing into {venv}: about 1.1 GB, one to five minutes ...', flush=True)
    install(venv, extras)
    write_stamp(venv, {**stamp, 'complete': True})
    print(f'installed in {time.monotonic() - started:.0f} s', flush=True)


def train_all(venv):
    """Trains and reports the three models, lets the classifier judge the GAN's digits, prints what to do next."""
    programs: list[tuple[str, ...]] = [
        ('train', f'--config=configs/{name}.py', f'--workdir=runs/{name}') for name in RUNS
    ]
    programs.append(('classify_samples', '--generator=runs/digits_gan', '--classifier=runs/digits', '--count=1000'))
    for number, (program, *flags) in enumerate(programs, 1):
        started = time.monotonic()
        print(f'\n[{number}/{len(programs)}] python -m launch.{program} {" ".join(flags)}', flush=True)
        code = call([str(python_of(venv)), '-m', f'launch.{program}', *flags])
        if code:
            raise Stop(f'launch.{program} ended with code {code}: see above; the same command resumes there')
        print(f'[{number}/{len(programs)}] {time.monotonic() - started:.0f} s', flush=True)
    reports = '\n'.join(f'  {ROOT / "runs" / name / "report.html"}' for name in RUNS)
    activate = f'{venv}\\Scripts\\activate' if os.name == 'nt' else f'source {venv}/bin/activate'
    print(f"""
Reports, to open in a browser:
{reports}

Next, in {ROOT}:
  {activate}
  tessera predict --workdir=runs/python_lm --input="def read(path):"
  tessera predict --workdir=runs/digits_gan --count=16 --seed=1 --output=runs/samples
  tessera evaluate --workdir=runs/digits --split=test
  tessera train --config=configs/digits.py --workdir=runs/digits_seed1 --config.seed=1""")


def read_arguments(arguments):
    """Parses the flags: `setup_only`, `extras` (a set) and `venv` (an absolute path)."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / 'setup.cfg', encoding='utf-8')
    known = sorted(setup['options.extras_require'])
    parser = argparse.ArgumentParser(prog='quickstart', description=__doc__.split('\n')[0], allow_abbrev=False)  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument('--setup_only', action='store_true', help='only create the environment')
    parser.add_argument('--extras', default='', help=f'extras to install, as in a,b: {", ".join(known)}')
    default = os.environ.get('TESSERA_VENV') or ROOT / '.venv'
    parser.add_argument('--venv', default=default, help='folder of the environment; TESSERA_VENV, or .venv')
    options = parser.parse_args(arguments)
    options.extras = {name.strip() for name in options.extras.split(',') if name.strip()}
    options.venv = Path(os.path.abspath(os.path.expanduser(options.venv)))
    unknown = options.extras - set(known)
    if unknown:
        raise Stop(f'there is no extra {", ".join(sorted(unknown))}; choose from {", ".join(known)}')
    return options


def main():
    """Runs the program; returns its exit code, and prints one sentence to stderr if it is not 0."""
    if hasattr(signal, 'SIGTERM'):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are terminated too
    try:
        options = read_arguments(sys.argv[1:])
        set_up(options.venv, options.extras)
        if not options.setup_only:
            train_all(options.venv)
    except Stop as stop:
        print(f'quickstart: {stop}', file=sys.stderr)
        return 1
    except OSError as error:
        full = error.errno == errno.ENOSPC
        reason = 'the disk is full; free some space and run the same command again' if full else str(error)
        print(f'quickstart: {reason}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nquickstart: interrupted; the same command resumes from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
