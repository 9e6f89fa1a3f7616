"""Checkpoints: Orbax writes and reads the arrays; manifests show which steps are intact.

Orbax restores a step with a flipped bit, a missing marker or half of its files without an error, so a step is finished
only when its manifest exists (research/checkpoint/manifest.py, which also describes the folders). In a step, `weights/`
contains variables and average, which can be read without the rest of the state in `rest/`.

`restore` is for the one run that writes to a folder: it moves and deletes damaged steps. `steps`, `best` and
`read_weights` change nothing and may be called while that run continues training. With several processes, all of them
call the methods of `Checkpoints`; only process 0 writes manifests and deletes.
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

STORED_NAMES = {'ema': 'average'}  # {field: its name on disk}: older runs used the old field name
WEIGHT_FIELDS = ('variables', 'average')  # the stored fields in `weights/`
PATTERN_CHARACTERS = '[]*?'  # Orbax expands them in paths


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
        self.current = -1  # the step last saved or restored by this object
        self.shapes: dict[Path, Any] = {}  # of the last saved state

    def save(self, step: int, state: Tree, meta: Mapping[str, Any], best: bool = False) -> None:
        """Saves `state` as `step` in the background; returns once its arrays are copied to the host.

        The state may be donated right after. Saving the current step (last saved or restored) again only replaces its
        `meta`, and makes it the best if `best` is set.

        Args:
          step: the number of updates made.
          state: a NamedTuple of pytrees of arrays, such as `State`, on any sharding.
          meta: JSON-compatible values; `restore` returns them.
          best: whether `best()` is this step from now on.

        Raises:
          UserError: if the previous save failed, or the folder contains this or a later step from elsewhere.
        """
        self.wait()
        meta = json.loads(json.dumps(meta))  # a copy, and an error here rather than in the background
        if step == self.current:
            self.pending = self.executor.submit(self._describe, step, meta, best)
            return
        newest = max(self.steps(), default=-1)
        if newest >= step:
            raise UserError(
                f'step {step} cannot be saved: {self.folder} already contains step {newest}; either another run '
                'writes there, or this one did not resume from its newest step; use another folder'
            )
        leaves = stored_leaves(state)
        self.shapes = {path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}
        items = {name: ocp.args.StandardSave(nest(part)) for name, part in by_item(leaves).items()}
        self.checkpointer.save(  # force: overwrite the rest of an interrupted save
            arrays_path(self.folder, step), args=ocp.args.Composite(**items), force=True
        )
        self.current = step
        self.pending = self.executor.submit(self._commit, step, meta, best)

    def _commit(self, step: int, meta: Mapping[str, Any], best: bool) -> None:
        self.checkpointer.wait_until_finished()
        if jax.process_index() == 0:
            if self.shapes:  # check the written shapes and dtypes
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
        """Waits for the save in progress.

        Raises:
          UserError: if it failed, for instance because the disk is full.
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
        """Waits as `wait` does, then stops the threads."""
        try:
            self.wait()
        finally:
            self.executor.shutdown()
            self.checkpointer.close()

    def clear_damaged(self, step: int) -> None:
        """Deletes the steps in damaged/ up to `step`, which have been trained again."""
        aside = self.folder / 'damaged'
        for old in manifests.numbers(aside, ''):
            if old <= step:
                (aside / str(old)).rmtree()
        if aside.exists() and not any(aside.iterdir()):
            aside.rmdir()

    def steps(self) -> list[int]:
        """The finished steps, ascending."""
        return finished_steps(self.folder)

    def best(self) -> int | None:
        """The finished step last saved as the best one, or None."""
        return best_step(self.folder)

    def restore(
        self, target: Tree, step: int | None = None, say: Callable[[str], None] = print
    ) -> tuple[Tree, dict[str, Any], int] | None:
        """Restores (state, meta, step) of the newest intact step; None if there is no finished step.

        Newer damaged steps are reported through `say` (file, problem, replacement) and moved to damaged/, so that
        training can save them again; the rest of interrupted saves is deleted. With `step`, only that step is
        accepted, and nothing is moved.

        Args:
          target: the state as `jax.ShapeDtypeStruct`s; their shardings may differ from the saved ones; without a
            sharding, the first device is used.
          step: the only acceptable step, or None.
          say: prints a message.

        Raises:
          UserError: if all steps are damaged, or the state does not fit `target`; names the files or the paths with
            both shapes.
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
        restored = self.checkpointer.restore(
            arrays_path(self.folder, manifest.step), args=ocp.args.Composite(**items)
        )
        leaves = {path: leaf for name in items for path, leaf in flatten_with_paths(restored[name]).items()}
        self.current = manifest.step
        state = jax.tree.unflatten(jax.tree.structure(target), [leaves[path] for path in wanted])
        return state, dict(manifest.meta), manifest.step


def open_checkpoints(
    folder: epath.Path, keep_last: int, commit_file: bool = False, contents: Contents | None = None
) -> Checkpoints:
    """Opens the checkpoints of the run in `folder`; keeps the last `keep_last` and the best.

    With `commit_file` a step is written in place and then marked as complete, as Orbax always does on gs://, where
    folders cannot be renamed; otherwise it is written under another name and renamed. `contents` are stored in the
    manifest of every step.

    Raises:
      UserError: if the path contains characters that Orbax expands as a pattern, which would lose the steps.
    """
    check_path(folder)
    folder = epath.Path(folder).resolve()
    absl = logging.getLogger('absl')
    if not_orbax not in absl.filters:
        absl.addFilter(not_orbax)
        sys.excepthook = functools.partial(without_closed_loops, sys.excepthook)
    return Checkpoints(folder, keep_last, commit_file, contents or Contents())


def check_path(folder: epath.Path) -> None:
    """Raises `UserError` for a path with pattern characters, which Orbax expands when it finishes a step."""
    folder = epath.Path(folder).resolve()
    if forbidden := [character for character in PATTERN_CHARACTERS if character in os.fspath(folder)]:
        raise UserError(
            f'{folder}: the path of a run must not contain {" ".join(forbidden)}, or its checkpoints are lost: '
            'use another --workdir'
        )


def without_closed_loops(hook: Callable, error_type: type, error: BaseException, trace: Any) -> None:
    """Calls an exception hook, except for the errors that TensorStore's threads repeat after a failed save."""
    if not (isinstance(error, RuntimeError) and str(error) == 'Event loop is closed'):
        hook(error_type, error, trace)


def not_orbax(record: logging.LogRecord) -> bool:
    """A log filter: drops records of Orbax unless debugging, because its failures are raised as exceptions."""
    ours = f'{os.sep}orbax{os.sep}checkpoint{os.sep}' not in record.pathname
    return ours or logging.getLogger('absl').isEnabledFor(logging.DEBUG)


def read_weights(
    folder: epath.Path, step: int | None = None, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Reads the weights of a run as NumPy trees; needs neither its config nor its optimizer nor its devices.

    Changes nothing in `folder`, may be called during training, and does not communicate with other processes.

    Args:
      folder: the run folder.
      step: the only acceptable step, or None for the newest intact one.
      say: prints a message about each damaged step that is skipped.

    Returns:
      {'variables': Variables, 'ema': Variables or None, 'step': int, 'meta': dict}; containers other than
      dicts come back as dicts of their field names or positions.

    Raises:
      UserError: if there is no step, all are damaged, or `step` is; names the files.
    """
    folder = epath.Path(folder).resolve()
    finished = finished_steps(folder)
    try:
        manifests.check_not_lost(folder, finished)
        manifest, damaged = find_good(folder, finished, step, together=False, item='weights/')
        if manifest is None:
            raise UserError(f'{folder} has no finished checkpoint; train it first, or give another run')
        tree = read_item(arrays_path(folder, manifest.step) / 'weights')
    except Exception:
        if step is not None or finished_steps(folder) == finished:
            raise
        return read_weights(folder, None, say)  # the run deleted this step meanwhile
    for bad, problem in damaged.items():
        say(f'step {bad} of {folder} cannot be used: {problem}; step {manifest.step} is used instead')
    for newer in manifests.unlisted_steps(folder) if step is None else ():
        if newer > manifest.step:
            file = manifests.manifest_path(folder, newer)
            say(f'step {newer} of {folder} has no manifest {file}; step {manifest.step} is used instead')
    weights = {name: Variables(part['params'], part.get('extra', {})) for name, part in tree.items()}
    weights = {name: weights.get(STORED_NAMES.get(name, name)) for name in ('variables', 'ema')}
    return {**weights, 'step': manifest.step, 'meta': dict(manifest.meta)}


def read_average(folder: epath.Path, count: int, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Reads weights as `read_weights` does, averaged over the last `count` checkpoints (Vaswani et al. 2017, 6.1).

    If there are fewer, or some are damaged, `say` prints a message and the others are averaged. Sums are in float64;
    leaves that are not floating point, such as counters, 'step' and 'meta' are those of the newest checkpoint. With
    several processes, all of them call it.

    Raises:
      UserError: if no step is intact.
    """
    folder = epath.Path(folder).resolve()
    steps = manifests.share(finished_steps(folder)[-count:])
    newest, totals, used = None, None, 0
    for step in reversed(steps):
        try:
            weights = read_weights(folder, step, say)
        except UserError as error:
            say(f'{error}\nit is not averaged')
            continue
        newest, used = newest or weights, used + 1
        wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), weights_of(weights))
        totals = wide if totals is None else jax.tree.map(np.add, totals, wide)
    if newest is None:
        return read_weights(folder, None, say)
    if used < count:
        say(f'{folder} has only {used} usable checkpoints to average instead of {count}')

    def mean(total: np.ndarray, leaf: np.ndarray) -> np.ndarray:
        return (total / used).astype(leaf.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return {**newest, **jax.tree.map(mean, totals, weights_of(newest))}


def read_chosen(
    folder: epath.Path, best: bool, count: int, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Reads the final weights of a run: averaged over `count` steps, of its best step, or of the newest.

    A damaged best step is skipped with a message through `say`.

    Raises:
      UserError: if no step is intact.
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
    """The part of the result of `read_weights` that is averaged."""
    return {name: weights[name] for name in ('variables', 'ema')}


def read_item(path: epath.Path) -> dict[str, Any]:
    """Reads one item of a step as a NumPy tree; the original devices are not needed."""
    handler = ocp.PyTreeCheckpointHandler()
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(path).tree)
    return handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=as_numpy))


def saved_shapes(folder: epath.Path, step: int) -> dict[Path, Any]:
    """{path: shape and dtype} of the arrays in a step."""
    handler, shapes = ocp.StandardCheckpointHandler(), {}
    for item in arrays_path(folder, step).iterdir():
        if item.is_dir():
            shapes |= flatten_with_paths(handler.metadata(item).tree)
    return shapes


def stored_leaves(state: Tree) -> dict[Path, Any]:
    """{path on disk: leaf} of a state, in the order of `jax.tree.leaves`."""
    return {(STORED_NAMES.get(path[0], path[0]), *path[1:]): leaf for path, leaf in flatten_with_paths(state).items()}


def by_item(leaves: Mapping[Path, Any]) -> dict[str, dict[Path, Any]]:
    """Sorts the leaves of a state into the items 'weights' and 'rest'; omits an empty item."""
    if len({'.'.join(path) for path in leaves}) < len(leaves):
        raise ValueError('paths of the state differ only by "." and "/", which Orbax would silently confuse')
    items: dict[str, dict[Path, Any]] = {}
    for path, leaf in leaves.items():
        items.setdefault('weights' if path[0] in WEIGHT_FIELDS else 'rest', {})[path] = leaf
    return items


def placed(leaf: Any) -> jax.ShapeDtypeStruct:
    """A leaf's shape, dtype and sharding; the first device if it has no sharding."""
    sharding = getattr(leaf, 'sharding', None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
