"""Private runs: a key that cannot be guessed, and outputs that show no training rows.

A run is private where its task keeps a budget of what its steps spent. Its guarantee holds against whoever does not
know the noise, so the noise follows from words drawn at random and not from `config.seed`. They are stored until the
run is finished, because a run that is continued makes the same noise again.
"""

import json
import os
import secrets
from typing import NamedTuple

from etils import epath

from research.core.logs import is_local, write_text
from research.core.task import Task

FILE = 'secret.json'


class Secret(NamedTuple):
    """What a private run draws at random: the words of the key of its steps, and the seed of its samples."""

    words: tuple[int, int]  # 32 bits each
    seed: int


def is_private(task: Task) -> bool:
    """Returns whether nothing that is stored may show training rows."""
    return task.budget is not None


def draw_secret(workdir: epath.Path) -> None:
    """Stores a new secret, readable by its owner alone, where the run has none."""
    file = workdir / FILE
    if file.exists():
        return
    secret = Secret((secrets.randbits(32), secrets.randbits(32)), secrets.randbits(31))
    if is_local(workdir):
        os.close(os.open(os.fspath(file) + '.part', os.O_CREAT | os.O_WRONLY, 0o600))  # before it holds anything
    write_text(file, json.dumps(secret._asdict()))


def read_secret(workdir: epath.Path) -> Secret:
    """Returns the secret of a run that is not finished."""
    values = json.loads((workdir / FILE).read_text())
    return Secret(tuple(values['words']), values['seed'])


def forget_secret(workdir: epath.Path) -> None:
    """Deletes the secret of a finished run: nobody can take the noise off its weights any more."""
    (workdir / FILE).unlink(missing_ok=True)


def contents_note(workdir: epath.Path) -> str:
    """Returns a note that names what was read from the training split without noise."""
    folder = workdir / 'prepared'
    names = sorted(path.name for path in folder.iterdir() if path.name != 'done') if folder.exists() else []
    if not names:
        return 'prepared/ holds nothing that was read from the training split'
    return (
        f'prepared/ ({", ".join(names)}) was read from the training split without noise: a vocabulary holds the words '
        'of its rows, and a stored corpus all of them; it is not covered by epsilon and needed to predict'
    )
