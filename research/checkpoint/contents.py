"""The inputs of a run besides its checkpoints: config.json, the files in prepared/, and the rows of its splits.

The manifest of every step lists them with size and SHA-256; they are verified before they are read.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from etils import epath

from research.checkpoint import manifest as manifests
from research.errors import UserError
from research.ops.seal import unsealed

CONFIG_FILE, PREPARED_FOLDER = 'config.json', 'prepared'


class Contents(NamedTuple):
    """`files` maps names in the run folder to (bytes, SHA-256), `data` maps splits to results of `digest_rows`."""

    files: Mapping[str, tuple[int, str]] = {}
    data: Mapping[str, Mapping[str, Any]] = {}


def digest_files(folder: epath.Path) -> dict[str, tuple[int, str]]:
    """{name: (bytes, SHA-256)} of config.json and of every file in prepared/."""
    names = [CONFIG_FILE] if (folder / CONFIG_FILE).exists() else []
    if (folder / PREPARED_FOLDER).exists():
        inner = (name for name in manifests.files(folder / PREPARED_FOLDER) if not name.split('/')[-1].startswith('.'))
        names += sorted(f'{PREPARED_FOLDER}/{name}' for name in inner)
    return manifests.digests(folder, names)


def newest_contents(folder: epath.Path) -> tuple[int, Contents]:
    """(step, contents) of the newest readable manifest with contents; (-1, Contents()) without one."""
    for step in reversed(manifests.finished_steps(folder)):
        try:
            manifest = manifests.read_manifest(folder, step)
        except (OSError, ValueError):
            continue
        if manifest.run:
            return step, Contents(manifest.run, manifest.data)
    return -1, Contents()


def verify_contents(folder: epath.Path) -> None:
    """Compares config.json and prepared/ with the newest manifest; older manifests without these entries pass.

    config.json may differ after a resume with other intervals, so it contains its own SHA-256.

    Raises:
      UserError: names the first file that is missing or has changed.
    """
    step, contents = newest_contents(folder)
    names = [name for name in contents.files if (folder / name).exists()]
    present = manifests.digests(folder, names)
    for name, (size, sha256) in contents.files.items():
        if name not in present:
            problem = 'is missing'
        elif tuple(present[name]) == (size, sha256) or (name == CONFIG_FILE and has_own_digest(folder / CONFIG_FILE)):
            continue
        elif present[name][0] != size:
            problem = f'has {present[name][0]} bytes instead of {size}'
        else:
            problem = 'has changed (its SHA-256 differs)'
        raise UserError(
            f'{folder / name} {problem} since step {step} was saved, so the results would change: '
            'restore the file, or train in another folder'
        )


def has_own_digest(file: epath.Path) -> bool:
    """Whether config.json contains the SHA-256 of its own content."""
    try:
        unsealed(json.loads(file.read_text()), required=True)
    except ValueError:
        return False
    return True


def changed_data(known: Mapping[str, Mapping[str, Any]], present: Mapping[str, Mapping[str, Any]]) -> str:
    """Describes the first split whose rows differ from the known ones; '' if none does."""
    for split, now in present.items():
        before = known.get(split)
        if before is None or dict(before) == dict(now):
            continue
        if before['rows'] != now['rows']:
            return f'the split {split!r} had {before["rows"]:,} rows and now has {now["rows"]:,}'
        return f'the {now["rows"]:,} rows of the split {split!r} have other content than before'
    return ''
