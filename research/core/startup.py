"""Before step 1: the run folder, the prepared files of the task, and restored or loaded weights."""

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from research.core.pytree import Transfer, transfer
from research.core.runspec import RunSpec
from research.core.state import State
from research.core.task import Task, Variables
from research.data.digest import digest_rows
from research.errors import UserError
from research.ops import paths
from research.ops.seal import sealed, unsealed

# Settings that may change between two starts in the same folder, because they do not affect past training.
RESUMABLE_KEYS = {
    'steps', 'epochs', 'eval_batch_size', 'log_every', 'eval_every', 'evaluations', 'eval_split', 'test_split',
    'checkpoint_every', 'keep_last', 'patience', 'average_checkpoints', 'sample_every', 'prefetch', 'workers', 'best',
}  # fmt: skip

# Names that a run writes after config.json; without a config.json they belong to something else.
RUN_FILES = (
    'prepared', 'checkpoints', 'checksums', 'damaged', 'samples', 'tensorboard', 'metrics.jsonl', 'metrics.json',
    'description.json', 'environment.json', 'report.html', 'finished.json', 'secret.json',
)  # fmt: skip
LOCK_FILE = 'running.lock'
NAMES = ('task.name', 'model.name', 'data.name')  # they determine the other settings of their section
SPLITS_FILE = 'splits.json'  # in prepared/: the digests of the splits


@contextlib.contextmanager
def run_lock(workdir: epath.Path) -> Iterator[None]:
    """Holds an exclusive lock on the folder; the system releases it when the process dies.

    Raises:
      UserError: if another process trains there, or the folder cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no fcntl
        fcntl = None
    if fcntl is None or jax.process_index() or not is_local(workdir):
        yield
        return
    with open_lock(workdir) as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f'{workdir}: another process is training there; wait for it, or use another --workdir'
            ) from None
        except OSError:  # a file system without locks
            pass
        yield


def open_lock(workdir: epath.Path) -> Any:
    """Creates the run folder and opens its lock file.

    Raises:
      UserError: if the path is not a folder, or may not be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        return (workdir / LOCK_FILE).open('w')
    except (FileExistsError, NotADirectoryError):
        raise UserError(f'--workdir={workdir}: a file of this name exists; name a folder') from None
    except PermissionError:
        raise UserError(f'--workdir={workdir}: this user may not write there; use another --workdir') from None


def as_dicts(config: Config) -> dict[str, Any]:
    """The resolved config as nested dicts, as in config.json."""
    return json.loads(config_module.to_json(config))


def store_config(config: Config, workdir: epath.Path, completed: Callable[[dict], dict] = dict) -> None:
    """Writes config.json, or checks that an existing run has the same settings.

    An existing run without a saved step restarts if the settings differ.

    Raises:
      UserError: lists the settings that differ (intervals and the mesh may), or files that belong to no run.
    """
    if jax.process_index():
        distributed.wait_for_all('config')  # compare only after process 0 has written it
    file = workdir / 'config.json'
    if file.exists():
        old, new = (
            dotted(json.loads(json.dumps(completed(values))))
            for values in (config_module.stored_values(file), as_dicts(config))
        )
        differing = differences(old, new)
        if differing and not jax.process_index() and not any(map(has_files, saved_in(workdir))):
            print(f'{workdir}: no step was saved there; restarting with the new settings')
            if (workdir / 'prepared').exists():
                (workdir / 'prepared').rmtree()
        elif differing:
            raise UserError(
                f'{workdir} contains a run with another config:\n' + '\n'.join(differing[:10])
                + '\nUse another --workdir, or remove that folder.'
            )  # fmt: skip
    elif present := [name for name in RUN_FILES if (workdir / name).exists()]:
        raise UserError(
            f'{workdir} already contains {", ".join(present)} but no config.json, so it is not a run of Tessera: '
            'use another --workdir'
        )
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        remove_parts(workdir)
        write_text(file, json.dumps(sealed(as_dicts(config)), indent=2))
        distributed.wait_for_all('config')


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lists the dotted settings that differ and may not change on resume; of a renamed section only its name."""
    keys = [
        key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key) and not may_change_on_resume(key)
    ]
    renamed = [key for key in keys if key in NAMES]
    within = tuple(f'{key.partition(".")[0]}.' for key in renamed)
    return [
        f'  {key}: {setting_text(old, key)} there, {setting_text(new, key)} now'
        for key in [*renamed, *(key for key in keys if not key.startswith(within))]
    ]


def setting_text(values: Mapping[str, Any], key: str) -> str:
    return repr(values[key]) if key in values else 'not set'


def remove_parts(workdir: epath.Path) -> None:
    """Deletes the partial files of a killed process, in the run folder and in samples/."""
    folders = [workdir, *(workdir / 'samples').glob('*')] if is_local(workdir) else []
    for folder in folders:
        for file in folder.glob('*.part'):
            file.unlink(missing_ok=True)


def saved_in(workdir: epath.Path) -> tuple[epath.Path, ...]:
    """The folders that contain files of saved steps."""
    return workdir / 'checkpoints', workdir / 'checksums'


def has_files(folder: epath.Path) -> bool:
    return folder.exists() and any(folder.iterdir())


def may_change_on_resume(key: str) -> bool:
    """Whether a setting may differ when a run resumes."""
    section, _, name = key.partition('.')
    return section in ('mesh', 'expected') or (section == 'train' and name in RESUMABLE_KEYS)


def dotted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Flattens nested dicts to {'a.b': value}."""
    leaves = paths.flatten_with_paths(values, lambda value: not isinstance(value, Mapping))
    return {'.'.join(path): value for path, value in leaves.items()}


def prepare_task(
    config: Config, workdir: epath.Path, prepare: Callable, build: Callable
) -> tuple[Task, Contents, Secret | None]:
    """Prepares and builds the task, and checks that its data have not changed since the saved steps.

    Process 0 prepares, then the others build the task. A private run also draws its secret.

    Returns:
      The task, the contents for the manifests (on process 0), and the secret of a private run.

    Raises:
      UserError: if a prepared file or the rows of a split have changed since the saved steps were trained.
    """
    folder, task, contents = workdir / 'prepared', None, Contents()
    if jax.process_index() == 0:
        task, data = prepare_and_digest(config, workdir, prepare, build)
        contents = Contents(digest_files(workdir), data)
        if is_private(task):
            draw_secret(workdir)
    distributed.wait_for_all('prepared')
    while task is None and not (folder / 'done').exists():
        time.sleep(0.2)  # a shared file system may show it with a delay
    task = task or build(config, folder)
    return task, contents, read_secret(workdir) if is_private(task) else None


def prepare_and_digest(
    config: Config, workdir: epath.Path, prepare: Callable, build: Callable
) -> tuple[Task, dict[str, Any]]:
    """Prepares the task and digests its splits; a run without saved steps prepares again if the data changed.

    Raises:
      UserError: if a run with saved steps would resume with other data.
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
                f'{workdir}: {changed}. The saved steps were trained on the old rows: '
                'train in another --workdir, or restore the old data'
            )
        print(f'{workdir}: {changed}; preparing again')
        folder.rmtree()
        prepare_once(config, folder, prepare)
        task = build(config, folder)
    if not started:
        write_text(folder / SPLITS_FILE, json.dumps(sealed(data), indent=2))
    return task, data


def prepare_once(config: Config, folder: epath.Path, prepare: Callable) -> None:
    """Calls the task's `prepare` unless it has finished before; an interrupted `prepare` starts again."""
    if (folder / 'done').exists():
        return
    if folder.exists():
        folder.rmtree()
    folder.mkdir(parents=True)
    prepare(config, folder)
    (folder / 'done').write_text('')


def digest_splits(config: Config, task: Task) -> dict[str, Any]:
    """{split: digest of its rows} of the splits that the run reads.

    The training split of a private run has only its row count: with a digest, all rows but one would reveal the last.
    """
    splits = dict.fromkeys(filter(None, ('train', config.train.eval_split, config.train.test_split)))
    return {
        split: {'rows': len(task.source(split))} if split == 'train' and is_private(task)
        else digest_rows(task.source(split))
        for split in splits
    }  # fmt: skip


def known_data(workdir: epath.Path) -> dict[str, Any]:
    """The stored digests of the splits that the run was prepared and trained with."""
    known = {}
    file = workdir / 'prepared' / SPLITS_FILE
    if file.exists():
        try:
            known = unsealed(json.loads(file.read_text()), required=True)
        except ValueError:  # damaged before a manifest could protect it
            known = {}
    return {**known, **newest_contents(workdir)[1].data}


def restore_or_init(
    spec: RunSpec, checkpoints: Checkpoints
) -> tuple[State, int, dict[str, Any], Sequence[str]]:
    """Restores the newest intact state, or creates one and loads weights into it.

    Returns:
      The state, its step, the meta data stored with it, and the paths of the parameters with initial values.
    """
    restored = checkpoints.restore(spec.state)
    if restored is not None:
        state, meta, step = restored
        check_account(spec, meta.get('account') or {}, step)
        print(f'resuming from step {step:,}')
        return state, step, meta, meta.get('initial', ())
    state = spec.init()
    initial = list(paths.flatten_paths(state.variables.params))
    if spec.task.load is not None:
        variables, report = load_weights(spec.task.load(), state.variables)
        initial = [path.removeprefix('params/') for path in report.kept if path.startswith('params/')]
        print(report)
        ema = None if state.ema is None else jax.tree.map(lambda leaf: leaf.copy(), variables)
        state = state._replace(variables=variables, ema=ema)
    return state, 0, {}, initial


def check_account(spec: RunSpec, stored: Mapping[str, float], step: int) -> None:
    """Raises `UserError` if the current config implies another spent budget than the one stored at `step`.

    A spent budget is fixed, but noise that is calibrated to a number of steps changes with that number.
    """
    account = spec.task.budget(step) if spec.task.budget else {}
    for name, value in account.items():
        if name in stored and not math.isclose(value, stored[name], rel_tol=1e-4):
            raise UserError(
                f'the budget changed: the checkpoint at step {step:,} spent {name} {stored[name]:.4g}, the current '
                f'config implies {value:.4g}. train.steps, train.epochs or the data were changed: restore them, or '
                'train in another --workdir'
            )


def load_weights(source: Variables, target: Variables) -> tuple[Variables, Transfer]:
    """Loads the leaves of `source` into `target` where path and shape match; returns (variables, report).

    Raises:
      UserError: if nothing matches.
    """
    loaded, report = transfer(target, source)
    if not report.matched:
        raise UserError(f'none of the given weights fit this model\n{report}')

    def placed(new: Any, old: jax.Array) -> jax.Array:
        return new if new is old else jax.device_put(np.asarray(new).astype(old.dtype), old.sharding)

    return jax.tree.map(placed, loaded, target), report
