"""Checkpoints: Orbax writes and reads the arrays; our manifests say which steps can be trusted.

Orbax restores a step with a flipped bit, a missing marker or half of its files without a word, so a step
counts only once its manifest stands (research/checkpoint/manifest.py, which also describes the folders). In a step,
`weights/` holds variables and average and can be read without the rest of the state, which is in `rest/`.

`restore` belongs to the one run that writes to a folder: it moves and deletes what is in the way. `steps`,
`best` and `read_weights` change nothing and may look while that run goes on. With several processes, all of
them call the methods of `Checkpoints`; only process 0 writes manifests and deletes.
"""

import errno
import functools
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from research.checkpoint import manifest as manifests
from research.checkpoint.contents import Contents
from research.checkpoint.manifest import arrays_path, best_step, find_good, finished_steps
from research.core.pytree import Path, Transfer, check_fit, nest, transfer
from research.core.task import Tree, Variables
from research.disk import disk_text, is_disk_full
from research.errors import UserError
from research.ops.paths import flatten_with_paths

__all__ = [
    'Checkpoints', 'Transfer', 'best_step', 'finished_steps', 'open_checkpoints', 'read_average', 'read_chosen',
    'read_weights', 'transfer',
]  # fmt: skip

STORED = {'ema': 'average'}  # a field's name on disk, where it differs: that of runs before the field was renamed
WEIGHTS = ('variables', 'average')  # the stored fields of the state that can be read alone
PATTERN = '[]*?'


class Checkpoints:
    """The checkpoints of one run; see `open_checkpoints`."""

    def __init__(self, folder: epath.Path, keep_last: int, commit_file: bool, contents: Contents):
        mode = ocp.options.AtomicityMode.COMMIT_FILE if commit_file else ocp.options.AtomicityMode.AUTO
        atomicity = ocp.options.AtomicityOptions(mode=mode)
        handler = ocp.CompositeCheckpointHandler(
            weights=ocp.StandardCheckpointHandler(),
            rest=ocp.StandardCheckpointHandler(),
            composite_options=ocp.CompositeOptions(atomicity_options=atomicity),
        )
        self.folder = folder
        self.keep_last = keep_last
        self.contents = contents
        self.checkpointer = ocp.AsyncCheckpointer(handler, atomicity_options=atomicity)
        self.executor = ThreadPoolExecutor(1, thread_name_prefix='checkpoint')
        self.pending: Future | None = None
        self.current = -1  # the step that this object saved or restored last
        self.shapes: dict[Path, Any] = {}  # of the state saved last

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], best: bool = False) -> None:
        """Saves `state` as `step` in the background; returns once its arrays are copied to the host.

        The state may be donated right after. The step saved or restored last is not written again when it is
        saved once more: it only takes the new `meta`, and becomes the best if `best` is set.

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
        meta = json.loads(json.dumps(meta))  # a copy, and an error here rather than in the background
        if step == self.current:
            self.pending = self.executor.submit(self._describe, step, meta, best)
            return
        newest = max(self.steps(), default=-1)
        if newest >= step:
            raise UserError(
                f'step {step} cannot be saved: {self.folder} already holds step {newest}; either another run '
                'writes there, or this one did not go on from its newest step; use another folder'
            )
        leaves = stored_leaves(state)
        self.shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}
        items = {name: ocp.args.StandardSave(nest(part)) for name, part in by_item(leaves).items()}
        self.checkpointer.save(  # force: over what a killed save of this step has left
            arrays_path(self.folder, step), args=ocp.args.Composite(**items), force=True
        )
        self.current = step
        self.pending = self.executor.submit(self._commit, step, meta, best)

    def _commit(self, step: int, meta: Mapping[str, Any], best: bool) -> None:
        self.checkpointer.wait_until_finished()
        if jax.process_index() == 0:
            if self.shapes:  # read back what can be read without the arrays' values
                check_fit(saved_shapes(self.folder, step), self.shapes, f'{self.folder}, step {step}, read back')
            manifest = manifests.make_manifest(self.folder, step, meta, best, *self.contents)
            manifests.write_manifest(self.folder, manifest)
            manifests.retire(self.folder, self.keep_last)

    def _describe(self, step: int, meta: Mapping[str, Any], best: bool) -> None:
        if jax.process_index() == 0:
            manifest = manifests.read_manifest(self.folder, step)
            files, data = self.contents
            manifest = manifest._replace(
                meta=meta, best=best or manifest.best, run=files or manifest.run, data=data or manifest.data
            )
            manifests.write_manifest(self.folder, manifest)
            manifests.retire(self.folder, self.keep_last)

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
            step, self.current, good = self.current, -1, self.steps()
            left = f'the newest finished step is {good[-1]}' if good else 'there is no finished step'
            why = str(error)
            if is_disk_full(error):
                size = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in self.shapes.values())
                why = f'{os.strerror(errno.ENOSPC)}: {disk_text(str(self.folder), size)}'
            raise UserError(f'step {step} could not be saved in {self.folder}: {why}; {left}') from error

    def close(self) -> None:
        """Waits as `wait` does, then frees the threads."""
        try:
            self.wait()
        finally:
            self.executor.shutdown()
            self.checkpointer.close()

    def clear_damaged(self, step: int) -> None:
        """Deletes the damaged steps that were set aside and trained again since, up to `step`."""
        aside = self.folder / 'damaged'
        for old in manifests.numbers(aside, ''):
            if old <= step:
                (aside / str(old)).rmtree()
        if aside.exists() and not any(aside.iterdir()):
            aside.rmdir()

    def steps(self) -> list[int]:
        """Returns the finished steps, ascending."""
        return finished_steps(self.folder)

    def best(self) -> int | None:
        """Returns the finished step last saved as the best one, or None."""
        return best_step(self.folder)

    def restore(
        self, target: Tree, step: int | None = None, say: Callable[[str], None] = print
    ) -> tuple[Tree, dict[str, Any], int] | None:
        """Returns (state, meta, step) of the newest step that verifies, or None where none was ever finished.

        Each newer step is told to `say` in one sentence (which file, what is wrong, what is used instead) and
        moved out of the way, so that training can save it again; what killed saves left is deleted. When
        `step` is given, only that one will do, and nothing is moved.

        Args:
          target: the state as `jax.ShapeDtypeStruct`s; their shardings need not be the saved ones, and where
            there is none the first device is meant.
          step: the step wanted, or None.
          say: what to do with a sentence for the user.

        Raises:
          UserError: when steps exist but none verifies, or the state does not fit `target`; names the files
            or the paths with both shapes.
        """
        self.wait()
        finished, unfinished = manifests.share(
            [finished_steps(self.folder), manifests.unfinished_steps(self.folder)]
        )
        manifests.check_not_lost(self.folder, finished)
        manifest, damaged = find_good(self.folder, finished, step, together=True)
        wanted = stored_leaves(target)
        if manifest is not None:
            check_fit(saved_shapes(self.folder, manifest.step), wanted, f'{self.folder}, step {manifest.step}')
        if step is None and jax.process_index() == 0:
            manifests.clear(self.folder, manifest and manifest.step, damaged, unfinished, say)
        if manifest is None:
            return None
        items = {
            name: ocp.args.StandardRestore(nest({path: placed(leaf) for path, leaf in part.items()}))
            for name, part in by_item(wanted).items()
        }
        found = self.checkpointer.restore(
            arrays_path(self.folder, manifest.step), args=ocp.args.Composite(**items)
        )
        leaves = {path: leaf for name in items for path, leaf in flatten_with_paths(found[name]).items()}
        self.current = manifest.step
        state = jax.tree.unflatten(jax.tree.structure(target), [leaves[path] for path in wanted])
        return state, dict(manifest.meta), manifest.step


def open_checkpoints(
    folder: epath.Path, keep_last: int, commit_file: bool = False, contents: Contents | None = None
) -> Checkpoints:
    """Returns the checkpoints of the run in `folder`, of which the last `keep_last` and the best are kept.

    With `commit_file` a step is written in place and marked when whole, as Orbax always does on gs://, where
    no folder can be renamed; otherwise it is written under another name and renamed. `contents` go into the
    manifest of every step.

    Raises:
      UserError: for a folder whose path holds characters that Orbax takes for a pattern: it would lose the steps.
    """
    check_path(folder)
    folder = epath.Path(folder).resolve()
    absl = logging.getLogger('absl')
    if not_orbax not in absl.filters:
        absl.addFilter(not_orbax)
        sys.excepthook = functools.partial(without_closed_loops, sys.excepthook)
    return Checkpoints(folder, keep_last, commit_file, contents or Contents())


def check_path(folder: epath.Path) -> None:
    """Raises a `UserError` for a path with characters of a pattern, which Orbax expands when it merges a step."""
    folder = epath.Path(folder).resolve()
    if held := [character for character in PATTERN if character in os.fspath(folder)]:
        raise UserError(
            f'{folder}: the path of a run may not hold {" ".join(held)}, which checkpoints are lost under: '
            'use another --workdir'
        )


def without_closed_loops(hook: Callable, kind: type, error: BaseException, trace: Any) -> None:
    """Calls an exception hook but for what TensorStore's threads print, dozens of times, after a save has failed."""
    if not (isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'):
        hook(kind, error, trace)


def not_orbax(record: logging.LogRecord) -> bool:
    """Returns whether to log: nothing of Orbax unless debugging, for its failures reach us as exceptions."""
    ours = f'{os.sep}orbax{os.sep}checkpoint{os.sep}' not in record.pathname
    return ours or logging.getLogger('absl').isEnabledFor(logging.DEBUG)


def read_weights(
    folder: epath.Path, step: int | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Returns the weights of a run as NumPy trees, without its config, its optimizer or its devices.

    Changes nothing in `folder`, may read while the run goes on, and concerns only the process that calls it.

    Args:
      folder: the run's folder.
      step: the step wanted, or None for the newest that verifies.
      say: told in one sentence about each damaged step that was passed over.

    Returns:
      {'variables': Variables, 'ema': Variables or None, 'step': int, 'meta': dict}; containers other than
      dicts come back as dicts of their field names or positions.

    Raises:
      UserError: when there is no step, none verifies, or the one wanted does not; names the files.
    """
    folder = epath.Path(folder).resolve()
    finished = finished_steps(folder)
    try:
        manifests.check_not_lost(folder, finished)
        manifest, damaged = find_good(folder, finished, step, together=False, item='weights/')
        if manifest is None:
            raise UserError(f'{folder} has no finished checkpoint; train it first, or name another run')
        tree = read_item(arrays_path(folder, manifest.step) / 'weights')
    except Exception:
        if step is not None or finished_steps(folder) == finished:
            raise
        return read_weights(folder, None, say)  # the run went on and deleted what was being read
    for bad, problem in damaged.items():
        say(f'step {bad} of {folder} cannot be used: {problem}; step {manifest.step} is used instead')
    for newer in manifests.unlisted_steps(folder) if step is None else ():
        if newer > manifest.step:
            file = manifests.manifest_path(folder, newer)
            say(f'step {newer} of {folder} has no manifest {file}; step {manifest.step} is used instead')
    weights = {name: Variables(part['params'], part.get('extra', {})) for name, part in tree.items()}
    weights = {name: weights.get(STORED.get(name, name)) for name in ('variables', 'ema')}
    return {**weights, 'step': manifest.step, 'meta': dict(manifest.meta)}


def read_average(folder: epath.Path, count: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Returns the weights of a run as `read_weights` does, each the mean over its last `count` checkpoints.

    Where there are fewer, or some do not verify, `say` receives a sentence and the others are averaged. Sums are in
    float64; leaves that are not floating point, such as counters, are the newest checkpoint's, and so are 'step' and
    'meta'. Averaging the end of a run: Vaswani et al. 2017 (arXiv:1706.03762), section 6.1. With several processes,
    all of them call it.

    Raises:
      UserError: when there is no step that verifies.
    """
    folder = epath.Path(folder).resolve()
    steps = manifests.share(finished_steps(folder)[-count:])
    newest, totals, used = None, None, 0
    for step in reversed(steps):
        try:
            weights = read_weights(folder, step, say)
        except UserError as error:
            say(f'{error}\nit is left out of the average')
            continue
        newest, used = newest or weights, used + 1
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights_of(weights))
        totals = wide if totals is None else jax.tree.map(np.add, totals, wide)
    if newest is None:
        return read_weights(folder, None, say)
    if used < count:
        say(f'{folder} holds {used} checkpoints that can be used: they are averaged in place of {count}')

    def mean(total: np.ndarray, leaf: np.ndarray) -> np.ndarray:
        return (total / used).astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return {**newest, **jax.tree.map(mean, totals, weights_of(newest))}


def read_chosen(
    folder: epath.Path, best: bool, count: int, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Returns the weights that a run is judged by: averaged over `count` steps, of its best step, or the newest.

    A best step that does not verify is passed over with a sentence to `say`.

    Raises:
      UserError: when no step can be used.
    """
    if count:
        return read_average(folder, count, say)
    chosen = best_step(epath.Path(folder).resolve()) if best else None
    if chosen is not None:
        try:
            return read_weights(folder, chosen, say)
        except UserError as error:
            say(f'{error}\nthe newest step is used instead of the best')
    return read_weights(folder, None, say)


def weights_of(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of what `read_weights` returns that is averaged."""
    return {name: weights[name] for name in ('variables', 'ema')}


def read_item(path: epath.Path) -> dict[str, Any]:
    """Returns one item of a step as a NumPy tree, whatever devices it was saved from."""
    handler = ocp.PyTreeCheckpointHandler()
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
    return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def saved_shapes(folder: epath.Path, step: int) -> dict[Path, Any]:
    """Returns {path: shape and dtype} of the arrays in a step."""
    handler, found = ocp.StandardCheckpointHandler(), {}
    for item in arrays_path(folder, step).iterdir():
        if item.is_dir():
            found |= flatten_with_paths(handler.metadata(item).tree)
    return found


def stored_leaves(state: Tree) -> dict[Path, Any]:
    """Returns {path on disk: leaf} of a state, in the order of `jax.tree.leaves`."""
    return {(STORED.get(path[0], path[0]), *path[1:]): leaf for path, leaf in flatten_with_paths(state).items()}


def by_item(leaves: Mapping[Path, Any]) -> dict[str, dict[Path, Any]]:
    """Returns the leaves of a state in the two items of a step; an item without any is left out."""
    if len({'.'.join(path) for path in leaves}) < len(leaves):
        raise ValueError('paths of the state differ only by "." and "/", which Orbax would silently confuse')
    items: dict[str, dict[Path, Any]] = {}
    for path, leaf in leaves.items():
        items.setdefault('weights' if path[0] in WEIGHTS else 'rest', {})[path] = leaf
    return items


def placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """Returns a leaf's shape, dtype and sharding, which is the first device where it has none."""
    sharding = getattr(leaf, 'sharding', None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
