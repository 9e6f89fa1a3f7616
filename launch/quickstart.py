"""From a bare clone to three trained models and their reports, with nothing but Python.

    bash launch/quickstart.sh        or, where there is no shell:  python launch/quickstart.py

Makes a virtual environment, installs the project into it, trains a classifier, a GAN and a language
model, and says where their reports are. Standard library only. Every Python since 3.6 must be able to
parse this file, so that an old one can say what is wrong instead of showing a syntax error.
"""

import sys

SUPPORTED = ((3, 11), (3, 13))
if not SUPPORTED[0] <= tuple(sys.version_info[:2]) <= SUPPORTED[1]:
    sys.exit(
        'quickstart: Tessera runs on Python 3.11, 3.12 and 3.13, and {} is Python {}.{}; install one of '
        'those and name it: PYTHON=/path/to/python3 bash launch/quickstart.sh'.format(
            sys.executable, *sys.version_info[:2]
        )
    )

import argparse
import configparser
import contextlib
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMP = 'tessera.json'  # in the environment: what it was made from
RUNS = ('digits', 'digits_gan', 'python_lm')
GIGABYTE = 10**9
VENV_BYTES = 1.5 * GIGABYTE  # the environment itself, measured at 1.2 GB, with some room
EXTRA_BYTES = {'cuda': 5 * GIGABYTE, 'parity': 6 * GIGABYTE, 'prepare': 2 * GIGABYTE}  # the large extras
DOWNLOAD_SHARE = 0.4  # of the installed size: what pip keeps in the folder for temporary files meanwhile
NETWORK_FAILURES = re.compile(
    r'NewConnectionError|ConnectTimeout|ReadTimeout|Read timed out|name resolution|Name or service not known|'
    r'Max retries exceeded|Connection (refused|reset|broken|aborted)|ProxyError|SSLError|ProtocolError|'
    r'getaddrinfo failed|Network is unreachable|Could not fetch URL|RemoteDisconnected'
)
DISK_FAILURES = re.compile(
    r'No space left on device|Errno 28\b|Disk quota exceeded|not enough space on the disk'
)


class Stop(Exception):
    """Ends the program with one sentence that says what is wrong and what to do."""


def folder_bytes(folder: Path) -> int:
    """Returns the bytes of all files below `folder`, 0 where it does not exist; links are not followed."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return total


def existing(path: Path) -> Path:
    """Returns `path` or the nearest folder above it that exists."""
    return next(each for each in (path, *path.parents) if each.exists())


def check_disk(venv: Path, extras: set[str]) -> None:
    """Raises `Stop` where the environment or pip's temporary files would not fit."""
    total = VENV_BYTES + sum(EXTRA_BYTES.get(name, 0) for name in extras)
    needed = max(total - folder_bytes(venv), 0.1 * total)  # what is there already, an update replaces in part
    downloads = DOWNLOAD_SHARE * needed
    place = existing(venv)
    try:
        temporary = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # no folder in which a small file could be written
        raise disk_full(place) from error
    if os.stat(place).st_dev == os.stat(temporary).st_dev:
        needs = [(place, needed + downloads, 'choose another folder with --venv=PATH')]
    else:
        needs = [
            (place, needed, 'choose another folder with --venv=PATH'),
            (temporary, downloads, 'set TMPDIR to a folder on another disk'),
        ]
    for folder, needed, otherwise in needs:
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise Stop(
                f'the disk is too full: the installation needs {needed / GIGABYTE:.1f} GB at {folder} and '
                f'{free / GIGABYTE:.1f} GB are free; free some, or {otherwise}'
            )


def disk_full(path: Path) -> Stop:
    """The sentence for a disk that filled up while something was written below `path`."""
    free = shutil.disk_usage(existing(path)).free / GIGABYTE
    return Stop(f'the disk is full ({free:.1f} GB left at {path}); free some and run the same command again')


def call(command: list[str], receive: Callable[[str], None] | None = None) -> int:
    """Runs `command` in the repository, hands its output to `receive` line by line, returns its exit code.

    Without `receive` the output goes straight to the terminal. When this program is interrupted the child
    is given time to save and leave before this one does.
    """
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    pipes = {} if receive is None else {'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    child = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, text=True, errors='replace', **pipes
    )
    try:
        for line in child.stdout or ():
            receive(line.rstrip())
        return child.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=60)  # the terminal interrupted it too; a second Ctrl-C ends the wait
        raise
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()


def stage(number: int, count: int, name: str, folder: Path, work: Callable[[], None]) -> None:
    """Runs `work` and prints the stage with the size of `folder` afterwards and the seconds it took."""
    start = time.monotonic()
    work()
    megabytes = folder_bytes(folder) / 10**6
    size = f'{megabytes:,.0f} MB' if megabytes >= 1 else f'{megabytes * 1000:,.0f} kB'
    print(f'[{number}/{count}] {name}  {size}, {time.monotonic() - start:.0f} s', flush=True)


def python_of(venv: Path) -> Path:
    """Returns the environment's interpreter: bin/python, on Windows Scripts/python.exe."""
    return venv / 'Scripts' / 'python.exe' if os.name == 'nt' else venv / 'bin' / 'python'


def fingerprint(venv: Path) -> dict[str, str]:
    """Returns what an environment depends on: the metadata files, the Python version, the two folders."""
    digest = hashlib.sha256()
    for name in ('setup.cfg', 'pyproject.toml'):
        digest.update((ROOT / name).read_bytes())
    return {
        'metadata': digest.hexdigest(),
        'python': '{}.{}'.format(*sys.version_info),
        'project': str(ROOT),
        'environment': str(venv),
    }


def read_stamp(venv: Path) -> dict:
    """Returns what was recorded of the environment, or {} where nothing readable was."""
    try:
        stamp = json.loads((venv / STAMP).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(venv: Path, stamp: dict) -> None:
    """Records what the environment is, whole or not at all."""
    venv.mkdir(parents=True, exist_ok=True)
    partial = venv / f'{STAMP}.partial'
    partial.write_text(json.dumps(stamp, indent=2), encoding='utf-8')
    partial.replace(venv / STAMP)


def version_of(venv: Path) -> str:
    """Returns 'major.minor' of the environment's Python, or '' where it does not run or has no pip."""
    program = 'import sys, pip; print("{}.{}".format(*sys.version_info))'
    try:
        done = subprocess.run(
            [str(python_of(venv)), '-I', '-c', program], capture_output=True, text=True, check=False
        )
    except OSError:
        return ''
    return done.stdout.strip() if done.returncode == 0 else ''


def is_complete(venv: Path, extras: set[str]) -> bool:
    """Returns whether nothing is to be done: installed from these files, with these extras, and it runs."""
    stamp = read_stamp(venv)
    same = all(stamp.get(key) == value for key, value in fingerprint(venv).items())
    return bool(same and stamp.get('complete') and extras <= set(stamp['extras']) and version_of(venv))


def make_environment(venv: Path) -> None:
    """Makes the virtual environment, or keeps the one that is there if it runs this Python version.

    Raises:
      Stop: without the modules venv and ensurepip; where `venv` is something that is not ours to remove.
    """
    wanted, found, stamp = fingerprint(venv)['python'], version_of(venv), read_stamp(venv)
    ours = stamp.get('made')
    moved = ours and stamp.get('environment', str(venv)) != str(venv)  # its scripts name the old folder
    if found == wanted and not moved:
        return
    if venv.exists() and not ours and (not venv.is_dir() or any(venv.iterdir())):
        what = f'an environment of Python {found}' if found else 'no environment that runs'
        raise Stop(f'{venv} exists and is {what}; remove it, or choose another folder with --venv=PATH')
    if any(importlib.util.find_spec(name) is None for name in ('venv', 'ensurepip')):
        raise Stop(
            f'{sys.executable} has no module venv; install it (Debian: apt install python{wanted}-venv), '
            'or name another Python: PYTHON=/path/to/python3 bash launch/quickstart.sh'
        )
    if found:
        print(f'{venv}: made for Python {found}{" elsewhere" if moved else ""}; making it again', flush=True)
    # First, so that an interrupted attempt is known as ours.
    write_stamp(venv, {'made': True, 'extras': stamp.get('extras', [])})
    for entry in venv.iterdir():
        if entry.name != STAMP:
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
    lines: list[str] = []
    if call([sys.executable, '-I', '-m', 'venv', str(venv)], lines.append):
        if DISK_FAILURES.search('\n'.join(lines)):
            raise disk_full(venv)
        raise Stop(f'{sys.executable} -m venv {venv} failed: {lines[-1] if lines else "it gave no reason"}')


def pip_failure(output: str) -> str:
    """Returns the reason for which pip failed, read from all that it printed, and what to do."""
    # pip prints this line, without passwords, when the index is not the default one.
    index = re.search(r'Looking in indexes: (.*)', output)
    name = index.group(1) if index else 'https://pypi.org'
    if NETWORK_FAILURES.search(output):
        return (
            f'the package index {name} cannot be reached; check the network, or name an index or a proxy '
            'with PIP_INDEX_URL or PIP_PROXY, and run the same command again'
        )
    missing = re.search(r'No matching distribution found for (.*)', output)
    if missing:
        return (
            f'the package index {name} has no {missing.group(1).strip()} for this Python and system '
            f'({sys.version.split()[0]}, {sysconfig.get_platform()}); try another Python of 3.11 to 3.13, or '
            'another index with PIP_INDEX_URL'
        )
    errors = re.findall(r'(?mi)^ *error: *(.*)', output)
    return f'pip could not install the project: {errors[-1] if errors else "it gave no reason"}'


def show(line: str) -> None:
    """Shows what pip is doing: all of it on one line of a terminal, elsewhere the large downloads alone."""
    width, terminal = max(20, shutil.get_terminal_size().columns - 1), sys.stdout.isatty()
    large = re.match(r' *Downloading ([^-]+-[^-]+)\S* (\(\d{2,}\.\d MB\))', line)
    if 'Retry(total=0' in line:  # pip is patient: it tries several times, for one package after another
        print('\r' + '  the package index does not answer; trying on'.ljust(width), flush=True)
    elif terminal and re.match(r' *(Collecting|Downloading|Using cached|Building|Installing) ', line):
        print('\r' + f'  {line.strip()}'[:width].ljust(width), end='', flush=True)
    elif large and not terminal:
        print(f'  downloading {large.group(1)} {large.group(2)}', flush=True)


def install(venv: Path, extras: set[str]) -> None:
    """Installs the project, editable, with `extras`; pip keeps the user's own index and settings.

    Raises:
      Stop: when pip fails, with the reason; its whole output is kept in the environment, as install.log.
    """
    log = venv / 'install.log'
    target = str(ROOT) + (f'[{",".join(sorted(extras))}]' if extras else '')
    with open(log, 'w', encoding='utf-8') as file:

        def receive(line: str) -> None:
            print(line, file=file, flush=True)
            show(line)

        pip = [str(python_of(venv)), '-m', 'pip', 'install', '--no-input', '--editable', target]
        code = call(pip, receive)
    if sys.stdout.isatty():
        print()
    if code:
        output = log.read_text(encoding='utf-8')
        if DISK_FAILURES.search(output):
            raise disk_full(venv)
        raise Stop(f'{pip_failure(output)} (all that pip said: {log})')


def set_up(venv: Path, extras: set[str], count: int) -> None:
    """Makes and fills the environment, or says that it is complete."""
    if is_complete(venv, extras):
        print(f'[2/{count}] {venv} is complete: nothing to install', flush=True)
        return
    extras = extras | set(read_stamp(venv).get('extras', []))
    check_disk(venv, extras)
    stage(1, count, f'environment {venv}', venv, lambda: make_environment(venv))
    made = bool(read_stamp(venv).get('made'))
    stamp = {**fingerprint(venv), 'made': made, 'extras': sorted(extras), 'complete': False}
    write_stamp(venv, stamp)
    print(f'[2/{count}] install: about 1.2 GB, one to five minutes', flush=True)
    stage(2, count, 'install', venv, lambda: install(venv, extras))
    write_stamp(venv, {**stamp, 'complete': True})


def launch(venv: Path, program: str, *flags: str) -> None:
    """Runs one of the project's programs, which print their own messages.

    Raises:
      Stop: when it fails.
    """
    print(f'$ python -m launch.{program} {" ".join(flags)}', flush=True)
    code = call([str(python_of(venv)), '-m', f'launch.{program}', *flags])
    if code and shutil.disk_usage(ROOT).free < 0.05 * GIGABYTE:
        raise disk_full(ROOT)
    if code:
        raise Stop(f'launch.{program} ended with code {code}: see above; the same command goes on there')


def train_all(venv: Path) -> None:
    """Trains and reports the three models, then lets the classifier judge the GAN's digits."""
    count = 3 + len(RUNS)
    for number, name in enumerate(RUNS, 3):
        flags = (f'--config=configs/{name}.py', f'--workdir=runs/{name}')
        stage(number, count, name, ROOT / 'runs' / name, lambda flags=flags: launch(venv, 'train', *flags))
    flags = ('--generator=runs/digits_gan', '--classifier=runs/digits', '--count=1000')
    stage(count, count, 'judge', ROOT / 'runs', lambda: launch(venv, 'classify_samples', *flags))


def next_commands(venv: Path) -> str:
    """Returns the paths of the reports and the commands to type next, for this system's shell."""
    reports = '\n'.join(f'  {ROOT / "runs" / name / "report.html"}' for name in RUNS)
    activate = f'{venv}\\Scripts\\activate' if os.name == 'nt' else f'source {venv}/bin/activate'
    return f"""
Reports, to open in a browser:
{reports}

Next, in {ROOT}:
  {activate}
  tessera predict --workdir=runs/python_lm --input="def read(path):"
  tessera predict --workdir=runs/digits_gan --count=16 --seed=1 --output=runs/samples
  tessera evaluate --workdir=runs/digits --split=test
  tessera train --config=configs/digits.py --workdir=runs/digits_seed1 --config.seed=1"""


def known_extras() -> list[str]:
    """Returns the names of the extras in setup.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / 'setup.cfg', encoding='utf-8')
    return sorted(parser['options.extras_require']) if parser.has_section('options.extras_require') else []


def read_arguments(arguments: list[str]) -> argparse.Namespace:
    """Returns the flags: `setup_only`, `extras` (a set) and `venv` (an absolute path)."""
    extras = known_extras()
    default = os.environ.get('TESSERA_VENV') or ROOT / '.venv'
    about = __doc__.split('\n')[0]
    parser = argparse.ArgumentParser(prog='quickstart', description=about, allow_abbrev=False)
    parser.add_argument('--setup_only', action='store_true', help='make the environment and stop')
    parser.add_argument('--extras', default='', help=f'extras to install, as in a,b: {", ".join(extras)}')
    parser.add_argument('--venv', default=default, help='folder of the environment; TESSERA_VENV, or .venv')
    options = parser.parse_args(arguments)
    options.extras = {name.strip() for name in options.extras.split(',') if name.strip()}
    options.venv = Path(os.path.abspath(os.path.expanduser(options.venv)))
    unknown = options.extras - set(extras)
    if unknown:
        raise Stop(f'there is no extra {", ".join(sorted(unknown))}; choose from {", ".join(extras)}')
    return options


def run(arguments: list[str]) -> None:
    """Sets up and, unless --setup_only, trains and reports."""
    options = read_arguments(arguments)
    try:
        set_up(options.venv, options.extras, count=2 if options.setup_only else 3 + len(RUNS))
        if not options.setup_only:
            train_all(options.venv)
            print(next_commands(options.venv), flush=True)
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, 'EDQUOT', errno.ENOSPC)):
            raise disk_full(options.venv) from error
        raise Stop(f'cannot use {error.filename or options.venv}: {error.strerror or error}') from error


def main() -> int:
    """Runs the program; returns its exit code, with one sentence on stderr where that is not 0."""
    if hasattr(signal, 'SIGTERM'):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a child is ended too
    try:
        run(sys.argv[1:])
    except Stop as stop:
        print(f'quickstart: {stop}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nquickstart: interrupted; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
