"""Checkpoints: Orbax writes and reads the arrays, checksums of our own say which steps can be trusted.

    checkpoints/<step>/       what Orbax writes: weights/ (variables, average) and rest/ (everything else)
    checksums/<step>.json     its record: size and SHA-256 of each file, the caller's meta, whether it is the best
    damaged/<step>/           a step that did not verify, moved out of the way

Orbax restores a step with a flipped bit, a missing marker or half of its files without a word, so a step counts
only once its record stands. The record is the last thing written and the first thing deleted: whenever a process
is killed, a step either has a record and is whole, or has none and is swept away by the next `restore`.

`restore` belongs to the one run that writes to the folder; `read_weights`, `steps` and `best` change nothing, and
may look while that run goes on. Every process calls every function; only process 0 writes records and deletes.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from research.core.task import Tree, Variables
from research.errors import UserError

WEIGHTS = ('variables', 'average')  # the fields of the state that make up the item 'weights'
SHOWN = 5  # differences named in a message
Path = tuple[str, ...]  # the names on the way to a leaf


class Checkpoints:
    """The checkpoints of one run; see `open_checkpoints`."""

    def __init__(self, folder: epath.Path, keep_last: int, commit_file: bool):
        mode = ocp.options.AtomicityMode.COMMIT_FILE if commit_file else ocp.options.AtomicityMode.AUTO
        atomicity = ocp.options.AtomicityOptions(mode=mode)
        handler = ocp.CompositeCheckpointHandler(
            weights=ocp.StandardCheckpointHandler(),
            rest=ocp.StandardCheckpointHandler(),
            composite_options=ocp.CompositeOptions(atomicity_options=atomicity),
        )
        self.folder = folder
        self.keep_last = keep_last
        self.checkpointer = ocp.AsyncCheckpointer(handler, atomicity_options=atomicity)
        self.executor = ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
        self.pending: Future | None = None
        self.current = -1  # the step that this object saved or restored last

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], best: bool = False) -> None:
        """Saves `state` as `step` in the background; returns once the arrays are copied to the host.

        The state may be donated right after. Saving the step just saved or restored writes no array again, only
        `meta` and `best`.

        Args:
          step: the number of updates made.
          state: a NamedTuple of pytrees of arrays, such as `State`, on any sharding.
          meta: anything JSON can hold; `restore` returns it.
          best: whether `best()` is this step from now on.

        Raises:
          UserError: when the save before this one failed, or the folder holds this step or a later one that
            this object neither saved nor restored.
        """
        self.wait()
        json.dumps(meta)  # a value that JSON cannot hold is an error here, not in the background
        if step == self.current:
            self.pending = self.executor.submit(self._describe, step, meta, best)
            return
        newest = max(self.steps(), default=-1)
        if newest >= step:
            raise UserError(
                f'{self.folder} already holds step {newest}, so step {step} is not saved over it: another run '
                f'writes here, or this one went on from an older step; use another folder or delete the steps '
                f'from {step} on'
            )
        if jax.process_index() == 0:
            record_path(self.folder, step).unlink(missing_ok=True)  # of a step whose arrays are gone
        items = {name: ocp.args.StandardSave(tree) for name, tree in to_items(state).items()}
        path = self.folder / 'checkpoints' / str(step)
        self.checkpointer.save(path, args=ocp.args.Composite(**items), force=True)  # over unfinished leftovers
        self.current = step
        self.pending = self.executor.submit(self._commit, step, meta, best)

    def _commit(self, step: int, meta: Mapping[str, Any], best: bool) -> None:
        self.checkpointer.wait_until_finished()
        if jax.process_index() == 0:
            arrays = self.folder / 'checkpoints' / str(step)
            write_record(self.folder, Record(step, best, meta, digests(arrays, list(files(arrays)))))
            retire(self.folder, self.keep_last)

    def _describe(self, step: int, meta: Mapping[str, Any], best: bool) -> None:
        if jax.process_index() == 0:
            record = read_record(self.folder, step)
            write_record(self.folder, record._replace(meta=meta, best=best or record.best))
            retire(self.folder, self.keep_last)

    def wait(self) -> None:
        """Returns when nothing is being written any more.

        Raises:
          UserError: when the save in progress failed, for instance because the disk is full.
        """
        pending, self.pending = self.pending, None
        if pending is None:
            return
        try:
            pending.result()
        except Exception as error:
            step, self.current = self.current, -1
            good = self.steps()
            raise UserError(
                f'step {step} could not be saved in {self.folder}: {error}; '
                + (f'the newest finished step is {good[-1]}' if good else 'there is no finished step')
            ) from error

    def close(self) -> None:
        """Waits, then frees the threads."""
        try:
            self.wait()
        finally:
            self.executor.shutdown()
            self.checkpointer.close()

    def steps(self) -> list[int]:
        """Returns the finished steps, ascending."""
        return finished_steps(self.folder)

    def best(self) -> int | None:
        """Returns the finished step last saved as the best one, or None."""
        return best_step(self.folder)

    def restore(
        self, target: Tree, step: int | None = None, say: Callable[[str], None] = print
    ) -> tuple[Tree, dict[str, Any], int] | None:
        """Returns (state, meta, step) of the newest step that verifies, or None when no step was ever finished.

        Each step passed over is told to `say` in one sentence and moved out of the way, and what killed saves
        left behind is deleted, so that training can save those steps again. Given a `step`, only that one will do,
        and nothing is moved.

        Args:
          target: the state as `jax.ShapeDtypeStruct`s with shardings; these may differ from the saved ones.
          step: the step wanted, or None.
          say: what to do with a sentence for the user.

        Raises:
          UserError: when steps exist but none verifies, or the state does not fit `target`; names files or paths.
        """
        self.wait()
        finished, unfinished = share([finished_steps(self.folder), unfinished_steps(self.folder)])
        record, damaged = find_good(self.folder, finished, step, together=True)
        if record is not None:
            saved = saved_shapes(self.folder, record.step)
            check_fit(saved, flat(target), f'{self.folder}, step {record.step}')
        if step is None and jax.process_index() == 0:
            instead = 'training starts anew' if record is None else f'step {record.step} is used instead'
            clear(self.folder, damaged, unfinished, -1 if record is None else record.step, instead, say)
        if record is None:
            return None
        items = {name: ocp.args.StandardRestore(tree) for name, tree in to_items(with_shardings(target)).items()}
        path = self.folder / 'checkpoints' / str(record.step)
        arrays = flat(dict(self.checkpointer.restore(path, args=ocp.args.Composite(**items)).items()))
        by_field = {path[1:]: array for path, array in arrays.items()}
        state = jax.tree.unflatten(jax.tree.structure(target), [by_field[path] for path in flat(target)])
        self.current = record.step
        return state, dict(record.meta), record.step


def open_checkpoints(folder: epath.Path, keep_last: int, commit_file: bool = False) -> Checkpoints:
    """Returns the checkpoints of the run in `folder`, of which the last `keep_last` and the best are kept.

    With `commit_file` steps are written in place and marked when whole, as Orbax always does on gs://, where a
    folder cannot be renamed at once; otherwise they are written under another name and renamed.
    """
    absl = logging.getLogger('absl')
    if mute not in absl.filters:
        absl.addFilter(mute)
    return Checkpoints(epath.Path(folder), keep_last, commit_file)


def mute(record: logging.LogRecord) -> bool:
    """Returns whether a log record is not from Orbax, whose failures all reach the caller as exceptions."""
    ours = f'{os.sep}orbax{os.sep}checkpoint{os.sep}' not in record.pathname
    return ours or logging.getLogger('absl').isEnabledFor(logging.DEBUG)


def best_step(folder: epath.Path) -> int | None:
    """Returns the finished step of a run that was last saved as the best one, or None."""
    for step in reversed(finished_steps(folder)):
        try:
            if read_record(folder, step).best:
                return step
        except (OSError, ValueError):
            continue  # a damaged record is for `restore` to report
    return None


def read_weights(folder: epath.Path, step: int | None = None, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Returns the weights of a run as NumPy trees, without its config, optimizer or devices.

    Changes nothing in `folder`, and may read while the run goes on. A call concerns one process only.

    Args:
      folder: the run's folder.
      step: the step wanted, or None for the newest that verifies.
      say: told, in one sentence each, which damaged steps were passed over.

    Returns:
      {'variables': Variables, 'average': Variables or None, 'step': int, 'meta': dict}. Containers other
      than dicts come back as dicts of their field names or indices.

    Raises:
      UserError: when there is no step, none verifies, or the one wanted does not; names the files.
    """
    folder = epath.Path(folder)
    record, damaged = find_good(folder, finished_steps(folder), step, together=False, item='weights/')
    if record is None:
        raise UserError(f'{folder} holds no finished checkpoint; train first, or name the folder of another run')
    for bad, problem in damaged.items():
        say(f'step {bad} of {folder} cannot be used: {problem}; step {record.step} is used instead')
    path = folder / 'checkpoints' / str(record.step) / 'weights'
    handler = ocp.PyTreeCheckpointHandler()
    on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
    tree = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=on_host))
    found = {name: Variables(tree[name]['params'], tree[name].get('extra', {})) for name in WEIGHTS if name in tree}
    return {'average': None, **found, 'step': record.step, 'meta': dict(record.meta)}


# Steps and their records.


class Record(NamedTuple):
    """What is known about a finished step; `files` maps a name to (bytes, SHA-256)."""

    step: int
    best: bool
    meta: Mapping[str, Any]
    files: Mapping[str, tuple[int, str]]


def record_path(folder: epath.Path, step: int) -> epath.Path:
    """Returns where the record of a step is."""
    return folder / 'checksums' / f'{step}.json'


def write_record(folder: epath.Path, record: Record) -> None:
    """Writes a record whole or not at all."""
    body = record._asdict()
    text = json.dumps({'sha256': seal(body), **body}, indent=1)
    path = record_path(folder, record.step)
    path.parent.mkdir(parents=True, exist_ok=True)
    if '://' in str(path):
        path.write_text(text)  # an object appears in a store when it is complete, and renaming one is a copy
        return
    temporary = path.with_name(path.name + '.tmp')
    with temporary.open('w') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_record(folder: epath.Path, step: int) -> Record:
    """Returns the record of a step.

    Raises:
      OSError, ValueError: when it is missing or damaged.
    """
    body = json.loads(record_path(folder, step).read_text())
    if not isinstance(body, dict) or body.pop('sha256', '') != seal(body) or body['step'] != step:
        raise ValueError('its content has changed')
    return Record(**body)


def seal(body: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of a record's content."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def numbers(folder: epath.Path, suffix: str = '') -> set[int]:
    """Returns the step numbers among the names in a folder that end with `suffix`."""
    if not folder.exists():
        return set()
    names = [path.name.removesuffix(suffix) for path in folder.iterdir() if path.name.endswith(suffix)]
    return {int(name) for name in names if name.isdecimal()}


def finished_steps(folder: epath.Path) -> list[int]:
    """Returns the steps that have a record, ascending; whether they verify is another question."""
    return sorted(numbers(folder / 'checksums', '.json'))


def unfinished_steps(folder: epath.Path) -> list[int]:
    """Returns the steps that a killed save (or deletion) left without a record, ascending."""
    arrays = folder / 'checkpoints'
    started = numbers(arrays) | numbers(arrays, ocp.path.atomicity.TMP_DIR_SUFFIX)
    return sorted(started - set(finished_steps(folder)))


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
    """Returns {name: (bytes, SHA-256)} of files, reading several at once (hashing releases the interpreter)."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(names, pool.map(lambda name: digest(folder / name), names), strict=True))


def retire(folder: epath.Path, keep_last: int) -> None:
    """Deletes the finished steps that are neither among the last `keep_last` nor the best."""
    best = best_step(folder)
    for step in finished_steps(folder)[:-keep_last]:
        if step != best:
            record_path(folder, step).unlink(missing_ok=True)  # first: from here on the step does not count
            (folder / 'checkpoints' / str(step)).rmtree(missing_ok=True)


def clear(
    folder: epath.Path,
    damaged: Mapping[int, str],
    unfinished: list[int],
    used: int,
    instead: str,
    say: Callable[[str], None],
) -> None:
    """Moves damaged steps aside and deletes what was left unfinished; tells `say` of those after step `used`."""
    for step, problem in damaged.items():
        aside = folder / 'damaged' / str(step)
        say(f'step {step} of {folder} cannot be used: {problem}; it is moved to {aside} and {instead}')
        record_path(folder, step).unlink(missing_ok=True)
        arrays = folder / 'checkpoints' / str(step)
        if arrays.exists():
            aside.rmtree(missing_ok=True)
            aside.parent.mkdir(parents=True, exist_ok=True)
            arrays.rename(aside)
    for step in unfinished:
        if step > used:
            say(f'step {step} of {folder} was not finished (it has no {record_path(folder, step).name} in '
                f'{folder / "checksums"}); it is deleted and {instead}')
        (folder / 'checkpoints' / str(step)).rmtree(missing_ok=True)
    for name in ('checkpoints', 'checksums'):
        for path in (folder / name).iterdir() if (folder / name).exists() else ():
            if ocp.path.atomicity.TMP_DIR_SUFFIX in path.name or path.name.endswith('.json.tmp'):
                path.rmtree(missing_ok=True)


# Finding a step that can be trusted.


def find_good(
    folder: epath.Path, finished: list[int], step: int | None, together: bool, item: str = ''
) -> tuple[Record | None, dict[int, str]]:
    """Returns (record of the newest good step or None, {damaged step: what is wrong}).

    With `together` all processes take part, each reading its share of the files, and agree. `item` limits the
    check to names that begin with it.

    Raises:
      UserError: when `step` is given and not good, or there are steps but no good one.
    """
    if step is not None and step not in finished:
        raise UserError(f'{folder} has no finished step {step}; it has {", ".join(map(str, finished)) or "none"}')
    share_of = (jax.process_index(), jax.process_count()) if together else (0, 1)
    damaged = {}
    for candidate in [step] if step is not None else reversed(finished):
        record, problem = verify(folder, candidate, item, *share_of)
        if together:
            problem = next(filter(None, gather(problem)), '')
        if not problem:
            return record, damaged
        damaged[candidate] = problem
    if step is not None:
        raise UserError(
            f'step {step} of {folder} cannot be used: {damaged[step]}; there are the steps '
            f'{", ".join(map(str, finished))}; delete {record_path(folder, step)} to leave this one out'
        )
    if damaged:
        raise UserError(
            f'no checkpoint of {folder} can be used:\n'
            + '\n'.join(f'  step {bad}: {problem}' for bad, problem in damaged.items())
            + '\nrestore these files from a copy, or train in another folder'
        )
    return None, {}


def verify(
    folder: epath.Path, step: int, item: str, process: int = 0, processes: int = 1
) -> tuple[Record | None, str]:
    """Returns (record, what is wrong with a step or ''); reads every file whose turn it is for `process`."""
    try:
        record = read_record(folder, step)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f'{record_path(folder, step)} cannot be read ({error})'
    arrays = folder / 'checkpoints' / str(step)
    if not arrays.exists():
        return record, f'{arrays} is gone'
    wanted = sorted(name for name in record.files if name.startswith(item))
    try:
        present = set(files(arrays))
        for name in wanted:
            if name not in present:
                return record, f'{arrays / name} is missing'
        for name in sorted(present - set(record.files)):
            if name.startswith(item) and not name.split('/')[-1].startswith('.'):  # .DS_Store, .nfs000
                return record, f'{arrays / name} does not belong there'
        for name, (size, sha256) in digests(arrays, wanted[process::processes]).items():
            wanted_size, wanted_sha256 = record.files[name]
            if size != wanted_size:
                how = 'truncated' if size < wanted_size else 'something was added'
                return record, f'{arrays / name} has {size} bytes instead of {wanted_size} ({how})'
            if sha256 != wanted_sha256:
                return record, f'the content of {arrays / name} has changed (its SHA-256 differs)'
    except OSError as error:
        return record, f'{arrays} cannot be read ({error})'
    return record, ''


def gather(text: str) -> list[str]:
    """Returns the text that each process passes, in the order of the processes; waits for all of them."""
    if jax.process_count() == 1:
        return [text]
    data = np.frombuffer(text.encode(), np.uint8)
    sizes = multihost_utils.process_allgather(np.array(data.size))
    padded = np.pad(data, (0, max(1, sizes.max()) - data.size))
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)]


def share(value: Any) -> Any:
    """Returns process 0's `value`, which JSON can hold."""
    return json.loads(gather(json.dumps(value))[0])


# Trees by path.


def flat(tree: Tree) -> dict[Path, Any]:
    """Returns {names on the way: leaf}, in the order of `jax.tree.leaves`; empty containers leave no trace."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {tuple(jax.tree_util.keystr((key,), simple=True) for key in path): leaf for path, leaf in leaves}


def nest(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Returns nested dicts with a leaf at each path."""
    nested: dict[str, Any] = {}
    for path, leaf in leaves.items():
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = leaf
    return nested


def to_items(state: Tree) -> dict[str, dict[str, Any]]:
    """Returns a state as {'weights': tree, 'rest': tree} of nested dicts, which any later version can read."""
    leaves = flat(state)
    if len({'.'.join(path) for path in leaves}) < len(leaves):  # Orbax would restore one for the other
        raise ValueError('two arrays of the state have the same path once "/" is written "."')
    weights = {path: leaf for path, leaf in leaves.items() if path[0] in WEIGHTS}
    rest = {path: leaf for path, leaf in leaves.items() if path[0] not in WEIGHTS}
    return {name: nest(part) for name, part in (('weights', weights), ('rest', rest)) if part}


def with_shardings(target: Tree) -> Tree:
    """Returns `target` as `jax.ShapeDtypeStruct`s that all have a sharding: the first device where none is given."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, 'sharding', None) or first),
        target,
    )


def saved_shapes(folder: epath.Path, step: int) -> dict[Path, Any]:
    """Returns {path: shape and dtype} of the arrays in a step."""
    found = {}
    for item in (folder / 'checkpoints' / str(step)).iterdir():
        if item.is_dir():
            found.update(flat(ocp.StandardCheckpointHandler().metadata(item).tree))
    return found


def shape_text(leaf: Any) -> str:
    """Returns a shape as a person writes it: 'float32[3,4]'."""
    return f'{np.dtype(leaf.dtype).name}[{",".join(map(str, leaf.shape))}]'


def check_fit(saved: Mapping[Path, Any], wanted: Mapping[Path, Any], where: str) -> None:
    """Raises a `UserError` that names the first paths where a saved state and the one wanted differ."""
    differences = []
    for path in [*wanted, *(path for path in saved if path not in wanted)]:
        texts = [shape_text(tree[path]) if path in tree else 'nothing' for tree in (saved, wanted)]
        if texts[0] != texts[1]:
            differences.append(f'  {"/".join(path)}: {texts[0]} is saved, {texts[1]} is wanted')
    if differences:
        more = len(differences) - SHOWN
        raise UserError(
            f'{where}: the saved state is not that of this config\n'
            + '\n'.join(differences[:SHOWN] + [f'  and {more} more'] * (more > 0))
            + '\ncontinue with the config that the run was started with (its config.json), or train in another '
            'folder'
        )


class Transfer(NamedTuple):
    """What became of each path when weights were moved from one tree to another; as text, a report."""

    matched: list[str]
    missing: list[str]  # in the target only
    unused: list[str]  # in the source only
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]  # path, shape in the target, in the source

    def __str__(self) -> str:
        parts = [
            ('matched', 'taken over', self.matched),
            ('missing', 'not in the source, left as they were', self.missing),
            ('unused', 'in the source only', self.unused),
            ('misshapen', 'left as they were', [f'{p}: {list(s)} is wanted, {list(t)} found' for p, s, t in self.misshapen]),
        ]
        lines = []
        for name, about, paths in parts:
            lines.append(f'{name}: {len(paths)} ({about})')
            shown = () if name == 'matched' else paths
            lines += [f'  {path}' for path in shown[:SHOWN]]
            lines += [f'  and {len(shown) - SHOWN} more'] * (len(shown) > SHOWN)
        return '\n'.join(lines)


def transfer(target: Tree, source: Tree) -> tuple[Tree, Transfer]:
    """Returns (`target` with the leaves of `source` whose path and shape are the same, report).

    Leaves are cast to the target's dtype; those without a match stay what they are in `target`. A pure function
    on the host; neither argument is changed.
    """
    given, wanted = flat(source), flat(target)
    matched, missing, misshapen, leaves = [], [], [], []
    for path, leaf in wanted.items():
        text, new = '/'.join(path), given.get(path)
        if new is None:
            missing.append(text)
        elif tuple(new.shape) != tuple(leaf.shape):
            misshapen.append((text, tuple(leaf.shape), tuple(new.shape)))
        else:
            matched.append(text)
            leaf = np.asarray(new).astype(leaf.dtype)
        leaves.append(leaf)
    unused = ['/'.join(path) for path in given if path not in wanted]
    return jax.tree.unflatten(jax.tree.structure(target), leaves), Transfer(matched, missing, unused, misshapen)
