"""Private runs: an unpredictable noise key, and outputs without training rows.

A run is private if its task has a privacy budget. The guarantee holds only while the noise is unknown, so the noise key
is drawn at random and does not follow from `config.seed`. It is stored until the run is finished, because a resumed run
must repeat the same noise.
"""

import json
import os
import secrets
from typing import NamedTuple

from etils import epath

from research.core.logs import is_local, write_text
from research.core.task import Task

SECRET_FILE = 'secret.json'


class Secret(NamedTuple):
    """Random values of a private run: the words of the noise key, and the seed of row order and augmentation."""

    words: tuple[int, int]  # 32 bits each
    seed: int


def is_private(task: Task) -> bool:
    """Whether stored outputs must not show training rows."""
    return task.budget is not None


def draw_secret(workdir: epath.Path) -> None:
    """Stores a new secret, readable only by its owner, unless the run has one."""
    file = workdir / SECRET_FILE
    if file.exists():
        return
    secret = Secret((secrets.randbits(32), secrets.randbits(32)), secrets.randbits(31))
    if is_local(workdir):
        os.close(os.open(os.fspath(file) + '.part', os.O_CREAT | os.O_WRONLY, 0o600))  # set the mode before writing
    write_text(file, json.dumps(secret._asdict()))


def read_secret(workdir: epath.Path) -> Secret:
    """Reads the secret of an unfinished run."""
    values = json.loads((workdir / SECRET_FILE).read_text())
    return Secret(tuple(values['words']), values['seed'])


def forget_secret(workdir: epath.Path) -> None:
    """Deletes the secret of a finished run, so that the noise in its weights cannot be reconstructed."""
    (workdir / SECRET_FILE).unlink(missing_ok=True)


def contents_note(workdir: epath.Path) -> str:
    """A note that names the prepared files that were read from the training split without noise."""
    folder = workdir / 'prepared'
    names = sorted(path.name for path in folder.iterdir() if path.name != 'done') if folder.exists() else []
    if not names:
        return 'prepared/ contains nothing from the training split'
    return (
        f'prepared/ ({", ".join(names)}) was read from the training split without noise: a vocabulary contains words '
        'of its rows, a stored corpus contains all rows; prediction needs it, and epsilon does not cover it'
    )
