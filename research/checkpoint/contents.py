"""What a run was made from besides its checkpoints: config.json, the files of prepared/, and the rows of its splits.

The manifest of every step holds their names, sizes and SHA-256, and they are verified before they are read.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from research.checkpoint import manifest as manifests
from research.errors import UserError
from research.ops.seal import unsealed

CONFIG, PREPARED = 'config.json', 'prepared'


class Contents(NamedTuple):
    """`files` maps a name in the run's folder to (bytes, SHA-256), `data` a split to what `digest_rows` returns."""

    files: Mapping[str, tuple[int, str]] = {}
    data: Mapping[str, Mapping[str, Any]] = {}


def digest_files(folder: epath.Path) -> dict[str, tuple[int, str]]:
    """Returns {name: (bytes, SHA-256)} of config.json and of every file in prepared/."""
    names = [CONFIG] if (folder / CONFIG).exists() else []
    if (folder / PREPARED).exists():
        inner = (name for name in manifests.files(folder / PREPARED) if not name.split('/')[-1].startswith('.'))
        names += sorted(f'{PREPARED}/{name}' for name in inner)
    return manifests.digests(folder, names)


def newest_contents(folder: epath.Path) -> tuple[int, Contents]:
    """Returns (step, contents) of the newest manifest that can be read and has any; (-1, none) without one."""
    for step in reversed(manifests.finished_steps(folder)):
        try:
            manifest = manifests.read_manifest(folder, step)
        except (OSError, ValueError):
            continue
        if manifest.run:
            return step, Contents(manifest.run, manifest.data)
    return -1, Contents()


def verify_contents(folder: epath.Path) -> None:
    """Compares config.json and prepared/ with the newest manifest; runs without such entries pass.

    config.json may differ from it where the run was continued with other intervals, so it has a SHA-256 of its own.

    Raises:
      UserError: names the first file that is missing or has changed.
    """
    step, contents = newest_contents(folder)
    names = [name for name in contents.files if (folder / name).exists()]
    present = manifests.digests(folder, names)
    for name, (size, sha256) in contents.files.items():
        if name not in present:
            problem = 'is missing'
        elif tuple(present[name]) == (size, sha256) or (name == CONFIG and has_own_digest(folder / CONFIG)):
            continue
        elif present[name][0] != size:
            problem = f'has {present[name][0]} bytes instead of {size}'
        else:
            problem = 'has changed (its SHA-256 differs)'
        raise UserError(
            f'{folder / name} {problem} since step {step} was saved, so the run would give other answers: '
            'put the file back, or train in another folder'
        )


def has_own_digest(file: epath.Path) -> bool:
    """Returns whether config.json holds the SHA-256 of its own content."""
    try:
        unsealed(json.loads(file.read_text()), required=True)
    except ValueError:
        return False
    return True


def changed_data(known: Mapping[str, Mapping[str, Any]], present: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns what changed in the first split whose rows are not those that are known, '' where none did."""
    for split, now in present.items():
        before = known.get(split)
        if before is None or dict(before) == dict(now):
            continue
        if before['rows'] != now['rows']:
            return f'the split {split!r} had {before["rows"]:,} rows and now has {now["rows"]:,}'
        return f'the {now["rows"]:,} rows of the split {split!r} have other content than before'
    return ''
