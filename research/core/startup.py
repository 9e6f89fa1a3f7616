"""Before step 1: the run's folder, what the task prepares, and weights from where they are."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from research.checkpoint.contents import Contents, changed_data, digest_files, newest_contents, verify_contents
from research.checkpoint.store import Checkpoints
from research.cluster import join as distributed
from research.core import config as config_module
from research.core.config import Config
from research.core.logs import is_local, write_text
from research.core.private import Secret, draw_secret, is_private, read_secret
from research.core.pytree import transfer
from research.core.runspec import RunSpec
from research.core.state import State
from research.core.task import Task, Variables
from research.data.digest import digest_rows
from research.errors import UserError
from research.ops import paths
from research.ops.seal import sealed, unsealed

# What may change between two starts in the same folder: none of it changes what was trained so far.
RESUMABLE_KEYS = {
    'steps', 'epochs', 'eval_batch_size', 'log_every', 'eval_every', 'evaluations', 'eval_split', 'test_split',
    'checkpoint_every', 'keep_last', 'patience', 'average_checkpoints', 'sample_every', 'prefetch', 'workers', 'best',
}  # fmt: skip

# What a run writes beside config.json, which it writes first: without that these are somebody else's.
WRITTEN = (
    'prepared', 'checkpoints', 'checksums', 'damaged', 'samples', 'tensorboard', 'metrics.jsonl', 'metrics.json',
    'description.json', 'environment.json', 'report.html', 'finished.json', 'secret.json',
)  # fmt: skip
LOCK = 'running.lock'
SPLITS = 'splits.json'  # in prepared/: the digests of the splits


@contextlib.contextmanager
def run_lock(workdir: epath.Path) -> Iterator[None]:
    """Keeps a second start out of the folder for as long as it is open; the system lets go of it when a process dies.

    Raises:
      UserError: where another process trains there.
    """
    try:
        import fcntl
    except ImportError:  # Windows has other locks
        fcntl = None
    if fcntl is None or jax.process_index() or not is_local(workdir):
        yield
        return
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / LOCK).open('w') as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{workdir}: another process trains there now; wait for it, or use another --workdir'
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def as_dicts(config: Config) -> dict[str, Any]:
    """Returns the resolved config as nested dicts, as in config.json."""
    return json.loads(config_module.to_json(config))


def store_config(config: Config, workdir: epath.Path, completed: Callable[[dict], dict] = dict) -> None:
    """Writes config.json, or checks that the run that is there was started with the same settings.

    A run that has not saved a step yet begins anew where they differ.

    Raises:
      UserError: lists the settings that differ (intervals and the mesh may), or what is there and is no run's.
    """
    if jax.process_index():
        distributed.wait_for_all('config')  # process 0 has written it when these compare theirs
    file = workdir / 'config.json'
    if file.exists():
        old, new = (
            dotted(json.loads(json.dumps(completed(values))))
            for values in (config_module.stored_values(file), as_dicts(config))
        )
        differing = [
            f'  {key}: {old.get(key)!r} there, {new.get(key)!r} now'
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not may_change_on_resume(key)
        ]
        if differing and not jax.process_index() and not any(map(has_files, saved_in(workdir))):
            print(f'{workdir}: no step was saved there; begins anew with other settings')
            if (workdir / 'prepared').exists():
                (workdir / 'prepared').rmtree()
        elif differing:
            raise UserError(
                f'{workdir} holds a run of another config:\n' + '\n'.join(differing[:10])
                + '\nUse another --workdir, or remove that folder.'
            )  # fmt: skip
    elif found := [name for name in WRITTEN if (workdir / name).exists()]:
        raise UserError(
            f'{workdir} holds {", ".join(found)} and no config.json of a run, which would write there: '
            'use another --workdir'
        )
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        remove_parts(workdir)
        write_text(file, json.dumps(sealed(as_dicts(config)), indent=2))
        distributed.wait_for_all('config')


def remove_parts(workdir: epath.Path) -> None:
    """Deletes half-written files that a killed process left: in the folder itself and in those of samples."""
    folders = [workdir, *(workdir / 'samples').glob('*')] if is_local(workdir) else []
    for folder in folders:
        for file in folder.glob('*.part'):
            file.unlink(missing_ok=True)


def saved_in(workdir: epath.Path) -> tuple[epath.Path, ...]:
    """Returns the folders of saved steps."""
    return workdir / 'checkpoints', workdir / 'checksums'


def has_files(folder: epath.Path) -> bool:
    """Returns whether a folder is there and not empty."""
    return folder.exists() and any(folder.iterdir())


def may_change_on_resume(key: str) -> bool:
    """Returns whether a setting may differ when a run goes on."""
    section, _, name = key.partition('.')
    return section in ('mesh', 'expected') or (section == 'train' and name in RESUMABLE_KEYS)


def dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested dicts as {'a.b': value}."""
    leaves = paths.flatten_with_paths(values, lambda value: not isinstance(value, Mapping))
    return {'.'.join(path): value for path, value in leaves.items()}


def prepare_task(
    config: Config, workdir: epath.Path, prepare: Callable, build: Callable
) -> tuple[Task, Contents, Secret | None]:
    """Prepares what the task needs, builds it, and checks that its data are those of the run so far.

    Process 0 does all of this, then the others build the task. A private run also draws its secret.

    Returns:
      The task, what goes into the manifests (of process 0), and the secret of a private run.

    Raises:
      UserError: when a prepared file or the rows of a split are not what the saved steps were trained with.
    """
    folder, task, contents = workdir / 'prepared', None, Contents()
    if jax.process_index() == 0:
        task, data = prepare_and_digest(config, workdir, prepare, build)
        contents = Contents(digest_files(workdir), data)
        if is_private(task):
            draw_secret(workdir)
    distributed.wait_for_all('prepared')
    while task is None and not (folder / 'done').exists():
        time.sleep(0.2)  # a shared file system may show it late
    task = task or build(config, folder)
    return task, contents, read_secret(workdir) if is_private(task) else None


def prepare_and_digest(
    config: Config, workdir: epath.Path, prepare: Callable, build: Callable
) -> tuple[Task, dict[str, Any]]:
    """Returns the task, prepared, and the digests of its splits; a run without a saved step prepares changed data anew.

    Raises:
      UserError: when a run with saved steps would continue with other data.
    """
    folder, started = workdir / 'prepared', any(map(has_files, saved_in(workdir)))
    if started:
        verify_contents(workdir)
    known = known_data(workdir)
    prepare_once(config, folder, prepare)
    task = build(config, folder)
    data = digest_splits(config, task)
    if changed := changed_data(known, data):
        if started:
            raise UserError(
                f'{workdir}: {changed}. What was prepared from them and trained so far does not fit the new rows: '
                'start afresh in another --workdir, or put the old data back'
            )
        print(f'{workdir}: {changed}; they are prepared anew')
        folder.rmtree()
        prepare_once(config, folder, prepare)
        task = build(config, folder)
    if not started:
        write_text(folder / SPLITS, json.dumps(sealed(data), indent=2))
    return task, data


def prepare_once(config: Config, folder: epath.Path, prepare: Callable) -> None:
    """Calls the task's `prepare` unless it finished before; a run killed meanwhile prepares again."""
    if (folder / 'done').exists():
        return
    if folder.exists():
        folder.rmtree()
    folder.mkdir(parents=True)
    prepare(config, folder)
    (folder / 'done').write_text('')


def digest_splits(config: Config, task: Task) -> dict[str, Any]:
    """Returns {split: digest of its rows} of the splits that the run reads.

    Of the training rows of a private run only their number: who knows all rows but one could test a digest for it.
    """
    splits = dict.fromkeys(filter(None, ('train', config.train.eval_split, config.train.test_split)))
    return {
        split: {'rows': len(task.source(split))} if split == 'train' and is_private(task)
        else digest_rows(task.source(split))
        for split in splits
    }  # fmt: skip


def known_data(workdir: epath.Path) -> dict[str, Any]:
    """Returns the digests of the splits that the run was prepared and trained with, as far as they were stored."""
    known = {}
    file = workdir / 'prepared' / SPLITS
    if file.exists():
        try:
            known = unsealed(json.loads(file.read_text()), required=True)
        except ValueError:  # without a saved step no manifest has verified it
            known = {}
    return {**known, **newest_contents(workdir)[1].data}


def restore_or_init(spec: RunSpec, checkpoints: Checkpoints) -> tuple[State, int, dict[str, Any]]:
    """Returns the newest good state of the run, or a new one with weights from elsewhere; its step; and its meta."""
    restored = checkpoints.restore(spec.state)
    if restored is not None:
        state, meta, step = restored
        check_account(spec, meta.get('account') or {}, step)
        print(f'going on from step {step:,}')
        return state, step, meta
    state = spec.init()
    if spec.task.load is not None:
        variables, report = load_weights(spec.task.load(), state.variables)
        print(report)
        ema = None if state.ema is None else jax.tree.map(lambda leaf: leaf.copy(), variables)
        state = state._replace(variables=variables, ema=ema)
    return state, 0, {}


def check_account(spec: RunSpec, stored: Mapping[str, float], step: int) -> None:
    """Raises a `UserError` where the task's account of the steps already made is no longer what it was.

    What was spent cannot change afterwards; noise that was computed for a number of steps would.
    """
    account = spec.task.budget(step) if spec.task.budget else {}
    for name, value in account.items():
        if name in stored and not math.isclose(value, stored[name], rel_tol=1e-4):
            raise UserError(
                f'this run stood at {name} {stored[name]:.4g} after step {step:,}, and with the present '
                f'settings it would be {value:.4g}: train.steps, train.epochs or the data were changed since. '
                'Change them back, or start again in another --workdir'
            )


def load_weights(source: Variables, target: Variables) -> tuple[Variables, str]:
    """Returns `target` with every leaf that `source` has by path and shape, and a report of what matched.

    Raises:
      UserError: when nothing matched.
    """
    found, report = transfer(target, source)
    if not report.matched:
        raise UserError(f'none of the given weights fit this model\n{report}')

    def placed(new: Any, old: jax.Array) -> jax.Array:
        return new if new is old else jax.device_put(np.asarray(new).astype(old.dtype), old.sharding)

    return jax.tree.map(placed, found, target), str(report)
