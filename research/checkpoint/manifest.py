"""Manifests: which steps of a run are finished, and whether their files are unchanged.

    checkpoints/<step>/      the files of a step
    checksums/<step>.json    its manifest: bytes and SHA-256 of each file, the caller's meta, whether it is the best
    damaged/<step>/          a step that failed verification

A manifest is written last and deleted first. So after a kill at any moment, a step with a manifest is complete, and a
step without one is ignored.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from research.errors import UserError
from research.ops.seal import sealed, unsealed

TEMPORARY_SUFFIX = '.orbax-checkpoint-tmp'  # of a step that is being written (Orbax's TMP_DIR_SUFFIX)
COMMIT_FILE = 'commit_success.txt'  # the last file of a step that Orbax writes (its COMMIT_SUCCESS_FILE)


class Manifest(NamedTuple):
    """The record of a finished step; `files` and `run` map a name to (bytes, SHA-256).

    `run` and `data` are those of `checkpoint.contents.Contents`; version 0.1 wrote neither.
    """

    step: int
    best: bool
    meta: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]
    run: Mapping[str, tuple[int, str]] = {}
    data: Mapping[str, Mapping[str, Any]] = {}


def arrays_path(folder: epath.Path, step: int) -> epath.Path:
    return folder / 'checkpoints' / str(step)


def manifest_path(folder: epath.Path, step: int) -> epath.Path:
    return folder / 'checksums' / f'{step}.json'


def write_manifest(folder: epath.Path, manifest: Manifest) -> None:
    """Writes a manifest atomically."""
    text = json.dumps(sealed(manifest._asdict()), indent=1)
    path = manifest_path(folder, manifest.step)
    path.parent.mkdir(parents=True, exist_ok=True)
    if '://' in str(path):
        path.write_text(text)  # object stores write atomically; a rename would be a copy
        return
    temporary = path.with_name(path.name + '.tmp')
    with temporary.open('w') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_manifest(folder: epath.Path, step: int) -> Manifest:
    """Reads the manifest of a step.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is damaged.
    """
    body = unsealed(json.loads(manifest_path(folder, step).read_text()), required=True)
    if body.get('step') != step:
        raise ValueError('it is the manifest of another step')
    return Manifest(**body)


def make_manifest(
    folder: epath.Path, step: int, meta: Mapping[str, Any], best: bool, run: Mapping = {}, data: Mapping = {}
) -> Manifest:
    """Makes the manifest of the present files of a step."""
    arrays = arrays_path(folder, step)
    return Manifest(step, best, meta, digests(arrays, list(files(arrays))), run, data)


def numbers(folder: epath.Path, suffix: str) -> set[int]:
    """The steps with a file or folder '<step><suffix>' in a folder."""
    if not folder.exists():
        return set()
    names = [path.name.removesuffix(suffix) for path in folder.iterdir() if path.name.endswith(suffix)]
    return {int(name) for name in names if name.isdecimal()}


def finished_steps(folder: epath.Path) -> list[int]:
    """The steps with a manifest, ascending; they are not verified here."""
    return sorted(numbers(folder / 'checksums', '.json'))


def unfinished_steps(folder: epath.Path) -> list[int]:
    """The steps that an interrupted save or deletion left without a manifest, ascending."""
    started = numbers(folder / 'checkpoints', '') | numbers(folder / 'checkpoints', TEMPORARY_SUFFIX)
    return sorted(started - set(finished_steps(folder)))


def unlisted_steps(folder: epath.Path) -> list[int]:
    """The steps that Orbax committed but that have no manifest, ascending."""
    return [step for step in unfinished_steps(folder) if (arrays_path(folder, step) / COMMIT_FILE).exists()]


def check_not_lost(folder: epath.Path, finished: list[int]) -> None:
    """Raises `UserError` if there are steps but all manifests are lost.

    A run killed in its first save leaves one step without a manifest and without metrics: that is not an error.
    """
    unlisted = [] if finished else unlisted_steps(folder)
    if len(unlisted) > 1 or (unlisted and (folder / 'metrics.json').exists()):
        raise UserError(
            f'{folder} contains step {", ".join(map(str, unlisted))} but no manifest: {folder / "checksums"} was lost. '
            'Restore it, or train in another folder'
        )


def best_step(folder: epath.Path, until: int | None = None) -> int | None:
    """The finished step last saved as the best one (up to step `until`), or None."""
    for step in reversed(finished_steps(folder)):
        try:
            if (until is None or step <= until) and read_manifest(folder, step).best:
                return step
        except (OSError, ValueError):
            continue  # `find_good` reports damaged manifests
    return None


def files(folder: epath.Path, prefix: str = '') -> Iterator[str]:
    """Yields the names of all files under a folder, with '/' between folders."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files(path, f'{prefix}{path.name}/')
        else:
            yield prefix + path.name


def digest(path: epath.Path) -> tuple[int, str]:
    """The size in bytes and the SHA-256 of a file."""
    size, sha256 = 0, hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            size += len(chunk)
            sha256.update(chunk)
    return size, sha256.hexdigest()


def digests(folder: epath.Path, names: list[str]) -> dict[str, tuple[int, str]]:
    """{name: (bytes, SHA-256)}, in several threads: hashing releases the interpreter lock."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(lambda name: digest(folder / name), names), strict=True))


def verify(
    folder: epath.Path, step: int, item: str = '', process: int = 0, processes: int = 1
) -> tuple[Manifest | None, str]:
    """(manifest, the problem of a step or ''); each process verifies its share of the files."""
    try:
        manifest = read_manifest(folder, step)
    except (OSError, ValueError) as error:
        return None, f'{manifest_path(folder, step)} cannot be read ({error})'
    arrays = arrays_path(folder, step)
    if not arrays.exists():
        return manifest, f'{arrays} is missing'
    try:
        return manifest, compare(arrays, manifest.files, item, process, processes)
    except OSError as error:
        return manifest, f'{arrays} cannot be read ({error})'


def compare(
    arrays: epath.Path, recorded: Mapping[str, tuple[int, str]], item: str, process: int, processes: int
) -> str:
    """The first difference between the files of a step and their recorded digests, or ''."""
    present = {name for name in files(arrays) if name.startswith(item)}
    wanted = sorted(name for name in recorded if name.startswith(item))
    for name in wanted:
        if name not in present:
            return f'{arrays / name} is missing'
    for name in sorted(present - set(wanted)):
        if not name.split('/')[-1].startswith('.'):  # systems drop names such as .DS_Store and .nfs0001
            return f'{arrays / name} is not in the manifest'
    for name, (size, sha256) in digests(arrays, wanted[process::processes]).items():
        wanted_size, wanted_sha256 = recorded[name]
        if size != wanted_size:
            change = 'truncated' if size < wanted_size else 'extended'
            return f'{arrays / name} has {size} bytes instead of {wanted_size} ({change})'
        if sha256 != wanted_sha256:
            return f'the content of {arrays / name} has changed (its SHA-256 differs)'
    return ''


def find_good(
    folder: epath.Path, finished: list[int], step: int | None, together: bool, item: str = ''
) -> tuple[Manifest | None, dict[int, str]]:
    """(manifest of the newest intact step or None, {newer step: its problem}).

    Args:
      folder: the run folder.
      finished: the candidate steps, ascending; may be empty.
      step: the only acceptable step, or None.
      together: whether all processes call this and each verifies its share of the files.
      item: verify only files whose names begin with it.

    Raises:
      UserError: if `step` is given and damaged, or all steps are; names the files.
    """
    if step is not None and step not in finished:
        present = ', '.join(map(str, finished)) or 'none'
        raise UserError(f'{folder} has no finished step {step}; finished steps: {present}')
    processes = (jax.process_index(), jax.process_count()) if together else (0, 1)
    damaged = {}
    for candidate in reversed(finished) if step is None else [step]:
        manifest, problem = verify(folder, candidate, item, *processes)
        if together:
            problem = next(filter(None, gather(problem)), '')
        if not problem:
            return manifest, damaged
        damaged[candidate] = problem
    if step is not None:
        raise UserError(
            f'step {step} of {folder} cannot be used: {damaged[step]}; restore the file, or delete '
            f'{manifest_path(folder, step)} to ignore this step (of {", ".join(map(str, finished))})'
        )
    if damaged:
        problems = '\n'.join(f'  step {bad}: {problem}' for bad, problem in damaged.items())
        raise UserError(
            f'no checkpoint of {folder} can be used:\n{problems}\n'
            'restore the files, or train in another folder'
        )
    return None, {}


def retire(folder: epath.Path, keep_last: int) -> None:
    """Deletes finished steps, except the last `keep_last` and the step that was best when the oldest of them was saved.

    That step is the best of all, or becomes the best again if all newer steps are damaged.
    """
    finished = finished_steps(folder)
    best = best_step(folder, finished[-keep_last:][0])
    for step in finished[:-keep_last]:
        if step != best:
            manifest_path(folder, step).unlink(missing_ok=True)
            arrays_path(folder, step).rmtree(missing_ok=True)


def set_aside(folder: epath.Path, step: int) -> epath.Path:
    """Deletes a step's manifest and moves its files to damaged/; returns the new folder."""
    aside, arrays = folder / 'damaged' / str(step), arrays_path(folder, step)
    manifest_path(folder, step).unlink(missing_ok=True)
    if arrays.exists():
        aside.parent.mkdir(parents=True, exist_ok=True)
        if aside.exists():
            aside.rmtree()
        arrays.rename(aside)
    return aside


def clear(
    folder: epath.Path,
    used: int | None,
    damaged: Mapping[int, str],
    unfinished: list[int],
    say: Callable[[str], None],
) -> None:
    """Clears the folder for training from step `used`, and reports every later step through `say`.

    Damaged steps are moved to damaged/. Unfinished ones are deleted, unless no step can be used: then a step that Orbax
    committed may be the rest of a run whose manifests were lost, and is moved too.
    """
    instead = 'training starts from the beginning' if used is None else f'step {used} is used instead'
    for step, problem in damaged.items():
        aside = set_aside(folder, step)
        say(f'step {step} of {folder} cannot be used: {problem}; it is moved to {aside} and {instead}')
    for step in unfinished:
        if used is None and (arrays_path(folder, step) / COMMIT_FILE).exists():
            action = f'moved to {set_aside(folder, step)}'
        else:
            arrays_path(folder, step).rmtree(missing_ok=True)
            action = 'deleted'
        if used is None or step > used:
            manifest = manifest_path(folder, step)
            say(
                f'step {step} of {folder} has no manifest {manifest} (interrupted save): '
                f'it is {action} and {instead}'
            )
    for name, suffix in (('checkpoints', TEMPORARY_SUFFIX), ('checksums', '.json.tmp')):
        for step in numbers(folder / name, suffix):
            (folder / name / f'{step}{suffix}').rmtree(missing_ok=True)


def gather(text: str) -> list[str]:
    """Gathers one text from each process, in the order of the processes; waits for all of them."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size))
    rows = multihost_utils.process_allgather(np.pad(data, (0, max(1, sizes.max()) - data.size)))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def share(value: Any) -> Any:
    """Sends the JSON-compatible `value` of process 0 to every process."""
    return json.loads(gather(json.dumps(value))[0])
