"""Before step 1: the run's folder, what the task prepares, weights from where they are, and what is printed."""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from research.capacity.flops import count_flops, expected_seconds
from research.checkpoint.store import Checkpoints
from research.cluster import join as distributed
from research.core import config as config_module
from research.core.config import Config
from research.core.logs import is_local, write_text
from research.core.memory import compiled_memory
from research.core.pytree import transfer
from research.core.runspec import RunSpec
from research.core.state import State
from research.core.task import Variables
from research.errors import UserError
from research.ops import paths
from research.report.describe import (
    describe,
    describe_devices,
    describe_example,
    describe_flow,
    summary_text,
)  # fmt: skip
from research.report.layers import call_order, describe_layers

# What may change between two starts in the same folder: none of it changes what was trained so far.
FREE = {
    'steps', 'epochs', 'eval_batch_size', 'log_every', 'eval_every', 'eval_split', 'test_split', 'checkpoint_every',
    'keep_last', 'patience', 'average', 'sample_every', 'prefetch', 'workers', 'best',
}  # fmt: skip

# What a run writes beside config.json, which it writes first: without that these are somebody else's.
WRITTEN = (
    'prepared', 'checkpoints', 'checksums', 'damaged', 'samples', 'tensorboard', 'metrics.jsonl', 'metrics.json',
    'description.json', 'environment.json', 'report.html',
)  # fmt: skip
LOCK = 'running.lock'


@contextlib.contextmanager
def alone(workdir: epath.Path) -> Iterator[None]:
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


def store_config(config: Config, workdir: epath.Path) -> None:
    """Writes config.json, or checks that the run that is there was started with the same settings.

    A run that has not saved a step yet begins anew where they differ.

    Raises:
      UserError: lists the settings that differ (intervals and the mesh may), or what is there and is no run's.
    """
    if jax.process_index():
        distributed.wait_for_all('config')  # process 0 has written it when these compare theirs
    file = workdir / 'config.json'
    if file.exists():
        old, new = (flatten(values) for values in (config_module.stored_values(file), as_dicts(config)))
        differing = [
            f'  {key}: {old.get(key)!r} there, {new.get(key)!r} now'
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key) and not free(key)
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
        write_text(file, config_module.to_json(config))
        distributed.wait_for_all('config')


def saved_in(workdir: epath.Path) -> tuple[epath.Path, ...]:
    """Returns the folders of saved steps."""
    return workdir / 'checkpoints', workdir / 'checksums'


def has_files(folder: epath.Path) -> bool:
    """Returns whether a folder is there and not empty."""
    return folder.exists() and any(folder.iterdir())


def free(key: str) -> bool:
    """Returns whether a setting may differ when a run goes on."""
    section, _, name = key.partition('.')
    return section in ('mesh', 'expected') or (section == 'train' and name in FREE)


def flatten(values: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    """Returns nested dicts as {'a.b': value}."""
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f'{prefix}{name}.'))
        else:
            flat[prefix + name] = value
    return flat


def prepare_once(config: Config, workdir: epath.Path, prepare: Callable) -> None:
    """Calls the task's `prepare` in process 0 unless it finished before; the others wait for it.

    It works in a folder of its own that is renamed when whole, so a run killed meanwhile prepares again.
    """
    folder = workdir / 'prepared'
    if jax.process_index() == 0 and not (folder / 'done').exists():
        if folder.exists():
            folder.rmtree()
        folder.mkdir(parents=True)
        prepare(config, folder)
        (folder / 'done').write_text('')
    distributed.wait_for_all('prepared')
    while jax.process_index() and not (folder / 'done').exists():
        time.sleep(0.2)  # a shared file system may show it late


def restore_or_init(plan: RunSpec, checkpoints: Checkpoints) -> tuple[State, int, dict[str, Any]]:
    """Returns the newest good state of the run, or a new one with weights from elsewhere; its step; and its meta."""
    restored = checkpoints.restore(plan.state)
    if restored is not None:
        state, meta, step = restored
        check_account(plan, meta.get('account') or {}, step)
        print(f'going on from step {step:,}')
        return state, step, meta
    state = plan.init()
    if plan.task.load is not None:
        variables, report = load_weights(plan.task.load(), state.variables)
        print(report)
        average = None if state.average is None else jax.tree.map(lambda leaf: leaf.copy(), variables)
        state = state._replace(variables=variables, average=average)
    return state, 0, {}


def check_account(plan: RunSpec, stored: Mapping[str, float], step: int) -> None:
    """Raises a `UserError` where the task's account of the steps already made is no longer what it was.

    What was spent cannot change afterwards; noise that was computed for a number of steps would.
    """
    account = plan.task.budget(step) if plan.task.budget else {}
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


def describe_run(plan: RunSpec, compiled: Any, workdir: epath.Path, start: int) -> dict[str, Any]:
    """Prints and stores what is known before step 1; returns the memory of the compiled step."""
    task, config = plan.task, plan.config
    memory = compiled_memory(compiled)
    if jax.process_index():
        return memory
    source = task.source('train')
    raw, encoded = source[0], task.encode(source[0])
    decoded = task.describe(encoded) if task.describe else None
    shapes = plan.state.variables
    frozen = {group: paths.select(shapes.params[group], each.frozen) for group, each in config.optimizer.items()}
    layers = describe_layers(
        shapes, task.losses, frozen, call_order(task.init, jax.random.key(0))
    )
    splits = ('train', *dict.fromkeys(filter(None, (config.train.eval_split, config.train.test_split))))
    words = {
        group: settings.name + (f', every {settings.update_every} steps' if settings.update_every > 1 else '')
        for group, settings in config.optimizer.items()
    }
    flops = count_flops(plan.step(), plan.state, plan.batch)
    devices = describe_devices(plan.mesh)
    description = describe(
        as_dicts(config), devices, layers, describe_example(raw, encoded, decoded),
        {split: len(task.source(split)) for split in splits}, plan.steps, start, memory,
        flops, describe_flow(task, plan.batch, config.methods, words),
        seconds_per_step=expected_seconds(flops['total'], devices['count'], devices['platform']),
    )  # fmt: skip
    description['notes'] = [*(task.notes() if task.notes else ()), *coupling_notes(plan)]
    write_text(workdir / 'description.json', json.dumps(description, indent=2))
    print(summary_text(description))
    for note in description['notes']:
        print(f'note: {note}')
    return memory


def coupling_notes(plan: RunSpec) -> list[str]:
    """Says where microbatches or padding rows are not the same as one large batch of real rows."""
    coupled = [group for group in plan.task.losses if 'batch_stats' in plan.state.variables.extra.get(group, {})]
    parts, notes = plan.config.train.microbatches, []
    if plan.task.couples_rows and parts > 1:
        notes.append(f'rows are mixed ({plan.task.couples_rows}); with microbatches={parts}, those of one microbatch')
    for group in coupled:
        if parts > 1:
            notes.append(
                f'group {group!r} keeps batch statistics; with microbatches={parts} they are taken per '
                'microbatch, so the result differs from one large batch'
            )
        if plan.capacity:
            notes.append(
                f"group {group!r} keeps batch statistics; with sampling='poisson' batches are filled up with "
                'padding rows, which enter them'
            )
    return notes


def store_environment(plan: RunSpec, workdir: epath.Path, times: Mapping[str, float], seconds: float) -> None:
    """Writes environment.json: versions, devices, command, how long each stage took, and all starts before this one.

    A start that was killed left no time behind.
    """
    file = workdir / 'environment.json'
    before: dict[str, Any] = {}
    if file.exists():
        with contextlib.suppress(ValueError):  # torn: its times are lost, not the run
            before = json.loads(file.read_text())
    packages = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
    versions = {name: importlib.metadata.version(name) for name in packages}
    environment = {
        'command': shlex.join(['python', *sys.argv]),
        'finished': time.strftime('%Y-%m-%d %H:%M:%S %Z'),
        'python': platform.python_version(),
        'system': f'{platform.system()} {platform.machine()}',
        'versions': versions,
        'devices': describe_devices(plan.mesh),
        'mesh': dataclasses.asdict(plan.config.mesh),
        'stages': {name: round(value, 3) for name, value in times.items()},
        'seconds': seconds,
        'seconds_before': round(before.get('seconds_before', 0.0) + before.get('seconds', 0.0), 1),
    }
    write_text(file, json.dumps(environment, indent=2))
