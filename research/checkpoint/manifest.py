"""Manifests: which steps of a run are finished, and whether their files are still what was written.

    checkpoints/<step>/      the files of a step, whoever wrote them
    checksums/<step>.json    its manifest: bytes and SHA-256 of each file, the caller's meta, is it the best
    damaged/<step>/          a step that did not verify, moved out of the way

A manifest is the last thing written and the first thing deleted. Whenever a process is killed, a step either
has a manifest and is whole, or it has none and does not count.
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

UNRENAMED = '.orbax-checkpoint-tmp'  # ends the name of a step that is being written (Orbax's TMP_DIR_SUFFIX)
COMMITTED = 'commit_success.txt'  # the last file of a step that Orbax writes (its COMMIT_SUCCESS_FILE)


class Manifest(NamedTuple):
    """What is known about a finished step; `files` and `run` map a name to (bytes, SHA-256).

    `run` and `data` are those of `checkpoint.contents.Contents`; manifests of before version 0.2 have neither.
    """

    step: int
    best: bool
    meta: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]
    run: Mapping[str, tuple[int, str]] = {}
    data: Mapping[str, Mapping[str, Any]] = {}


def arrays_path(folder: epath.Path, step: int) -> epath.Path:
    """Returns the folder of a step's files."""
    return folder / 'checkpoints' / str(step)


def manifest_path(folder: epath.Path, step: int) -> epath.Path:
    """Returns the file that holds the manifest of a step."""
    return folder / 'checksums' / f'{step}.json'


def write_manifest(folder: epath.Path, manifest: Manifest) -> None:
    """Writes a manifest whole or not at all."""
    text = json.dumps(sealed(manifest._asdict()), indent=1)
    path = manifest_path(folder, manifest.step)
    path.parent.mkdir(parents=True, exist_ok=True)
    if '://' in str(path):
        path.write_text(text)  # an object appears in a store once it is complete; renaming one is a copy
        return
    temporary = path.with_name(path.name + '.tmp')
    with temporary.open('w') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_manifest(folder: epath.Path, step: int) -> Manifest:
    """Returns the manifest of a step.

    Raises:
      OSError: when it cannot be read.
      ValueError: when it is not what was written.
    """
    body = unsealed(json.loads(manifest_path(folder, step).read_text()), required=True)
    if body.get('step') != step:
        raise ValueError('it is the manifest of another step')
    return Manifest(**body)


def make_manifest(
    folder: epath.Path, step: int, meta: Mapping[str, Any], best: bool, run: Mapping = {}, data: Mapping = {}
) -> Manifest:
    """Returns the manifest of the files that a step has now."""
    arrays = arrays_path(folder, step)
    return Manifest(step, best, meta, digests(arrays, list(files(arrays))), run, data)


def numbers(folder: epath.Path, suffix: str) -> set[int]:
    """Returns the steps named in a folder by '<step><suffix>'."""
    if not folder.exists():
        return set()
    names = [path.name.removesuffix(suffix) for path in folder.iterdir() if path.name.endswith(suffix)]
    return {int(name) for name in names if name.isdecimal()}


def finished_steps(folder: epath.Path) -> list[int]:
    """Returns the steps that have a manifest, ascending; whether they verify is another question."""
    return sorted(numbers(folder / 'checksums', '.json'))


def unfinished_steps(folder: epath.Path) -> list[int]:
    """Returns the steps that a killed save or deletion left without a manifest, ascending."""
    started = numbers(folder / 'checkpoints', '') | numbers(folder / 'checkpoints', UNRENAMED)
    return sorted(started - set(finished_steps(folder)))


def unlisted_steps(folder: epath.Path) -> list[int]:
    """Returns the steps that Orbax committed and that have no manifest, ascending."""
    return [step for step in unfinished_steps(folder) if (arrays_path(folder, step) / COMMITTED).exists()]


def check_not_lost(folder: epath.Path, finished: list[int]) -> None:
    """Raises a `UserError` where steps exist and all manifests are gone.

    A run that is killed in its first save leaves one step without a manifest and no metrics.
    """
    unlisted = [] if finished else unlisted_steps(folder)
    if len(unlisted) > 1 or (unlisted and (folder / 'metrics.json').exists()):
        raise UserError(
            f'{folder} holds step {", ".join(map(str, unlisted))} and the manifest of none: {folder / "checksums"} '
            'was lost. Put it back, or train in another folder'
        )


def best_step(folder: epath.Path, until: int | None = None) -> int | None:
    """Returns the finished step that was last saved as the best one (as of step `until`), or None."""
    for step in reversed(finished_steps(folder)):
        try:
            if (until is None or step <= until) and read_manifest(folder, step).best:
                return step
        except (OSError, ValueError):
            continue  # `find_good` reports a damaged manifest; here there is nothing to learn from it
    return None


def files(folder: epath.Path, prefix: str = '') -> Iterator[str]:
    """Yields the names of all files under a folder, with '/' between folders."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from files(path, f'{prefix}{path.name}/')
        else:
            yield prefix + path.name


def digest(path: epath.Path) -> tuple[int, str]:
    """Returns the bytes and the SHA-256 of a file."""
    size, sha256 = 0, hashlib.sha256()
    with path.open('rb') as file:
        while chunk := file.read(1 << 20):
            size += len(chunk)
            sha256.update(chunk)
    return size, sha256.hexdigest()


def digests(folder: epath.Path, names: list[str]) -> dict[str, tuple[int, str]]:
    """Returns {name: (bytes, SHA-256)}, reading several files at once: hashing releases the interpreter."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(lambda name: digest(folder / name), names), strict=True))


def verify(
    folder: epath.Path, step: int, item: str = '', process: int = 0, processes: int = 1
) -> tuple[Manifest | None, str]:
    """Returns (manifest, what is wrong with a step or ''); reads only the share of `process` of its files."""
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
    """Returns the first difference between the files of a step and what was recorded of them, or ''."""
    present = {name for name in files(arrays) if name.startswith(item)}
    wanted = sorted(name for name in recorded if name.startswith(item))
    for name in wanted:
        if name not in present:
            return f'{arrays / name} is missing'
    for name in sorted(present - set(wanted)):
        if not name.split('/')[-1].startswith('.'):  # systems drop names such as .DS_Store and .nfs0001
            return f'{arrays / name} does not belong there'
    for name, (size, sha256) in digests(arrays, wanted[process::processes]).items():
        wanted_size, wanted_sha256 = recorded[name]
        if size != wanted_size:
            how = 'truncated' if size < wanted_size else 'something was added'
            return f'{arrays / name} has {size} bytes instead of {wanted_size} ({how})'
        if sha256 != wanted_sha256:
            return f'the content of {arrays / name} has changed (its SHA-256 differs)'
    return ''


def find_good(
    folder: epath.Path, finished: list[int], step: int | None, together: bool, item: str = ''
) -> tuple[Manifest | None, dict[int, str]]:
    """Returns (manifest of the newest step that verifies or None, {newer step: what is wrong with it}).

    Args:
      folder: the run's folder.
      finished: the steps to choose from, ascending; without any, there is no manifest.
      step: the only step that will do, or None.
      together: whether all processes call this, each to read its share of the files.
      item: limits the check to the files whose names begin with it.

    Raises:
      UserError: when `step` is given and does not verify, or none of several does; names the files.
    """
    if step is not None and step not in finished:
        there_is = ', '.join(map(str, finished)) or 'none'
        raise UserError(f'{folder} has no finished step {step}; there is {there_is}')
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
            f'step {step} of {folder} cannot be used: {damaged[step]}; put the file back, or delete '
            f'{manifest_path(folder, step)} to leave this step out (of {", ".join(map(str, finished))})'
        )
    if damaged:
        problems = '\n'.join(f'  step {bad}: {problem}' for bad, problem in damaged.items())
        raise UserError(
            f'no checkpoint of {folder} can be used:\n{problems}\n'
            'put the files back, or train in another folder'
        )
    return None, {}


def retire(folder: epath.Path, keep_last: int) -> None:
    """Deletes finished steps but the last `keep_last` and the best one when the oldest of these was saved.

    That is the best of all, or it becomes so again where all newer steps turn out to be damaged.
    """
    finished = finished_steps(folder)
    best = best_step(folder, finished[-keep_last:][0])
    for step in finished[:-keep_last]:
        if step != best:
            manifest_path(folder, step).unlink(missing_ok=True)
            arrays_path(folder, step).rmtree(missing_ok=True)


def set_aside(folder: epath.Path, step: int) -> epath.Path:
    """Takes a step's manifest away and moves its files out of the way; returns where to."""
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
    """Makes way for training from step `used` on, and tells `say` about every step after it that was there.

    Damaged steps are moved aside. Unfinished ones are deleted, unless no step can be used: then one that
    Orbax committed may be all that is left of a run whose manifests were lost, and is moved aside too.
    """
    instead = 'training starts anew' if used is None else f'step {used} is used instead'
    for step, problem in damaged.items():
        aside = set_aside(folder, step)
        say(f'step {step} of {folder} cannot be used: {problem}; it is moved to {aside} and {instead}')
    for step in unfinished:
        if used is None and (arrays_path(folder, step) / COMMITTED).exists():
            what = f'moved to {set_aside(folder, step)}'
        else:
            arrays_path(folder, step).rmtree(missing_ok=True)
            what = 'deleted'
        if used is None or step > used:
            manifest = manifest_path(folder, step)
            say(
                f'step {step} of {folder} has no manifest {manifest}, so it is not whole; '
                f'it is {what} and {instead}'
            )
    for place, suffix in (('checkpoints', UNRENAMED), ('checksums', '.json.tmp')):
        for step in numbers(folder / place, suffix):
            (folder / place / f'{step}{suffix}').rmtree(missing_ok=True)


def gather(text: str) -> list[str]:
    """Returns the text that each process passes, in the order of the processes; waits for all of them."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size))
    rows = multihost_utils.process_allgather(np.pad(data, (0, max(1, sizes.max()) - data.size)))
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def share(value: Any) -> Any:
    """Returns process 0's `value`, which JSON can hold, on every process."""
    return json.loads(gather(json.dumps(value))[0])
