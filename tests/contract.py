"""What the contract tests share: every config found by glob, built once at ':tiny' with one compiled step."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from research import api
from research.core.config import Config
from research.core.evaluate import evaluate, make_evaluator, scalars
from research.core.runspec import RunSpec, make_run_spec
from research.core.state import State, eval_variables
from research.data.batches import Row, encode_rows, place, requests

ROOT = pathlib.Path(__file__).parent.parent
STEPS = 3


def all_configs() -> list[str]:
    """Returns 'configs/x.py' for every config of the project."""
    files = sorted((ROOT / 'configs').rglob('*.py'))
    return [str(file.relative_to(ROOT)) for file in files if file.stem != '__init__']


@functools.cache
def tiny(name: str) -> Config:
    """A config at ':tiny', read once per process."""
    return api.read(f'{name}:tiny')


class Planned(NamedTuple):
    """A config at ':tiny', prepared and planned for one device."""

    config: Config
    folder: epath.Path
    spec: RunSpec


class Built(NamedTuple):
    """The same, compiled, with its state before and after a few steps."""

    config: Config
    folder: epath.Path
    spec: RunSpec
    compiled: Any
    before: State
    after: State
    logs: list[dict[str, Any]]
    steps: int


def batch_of(spec: RunSpec, step: int) -> dict[str, jax.Array]:
    """Returns the device batch of a step."""
    rows = spec.rows(step)
    local = encode_rows(spec.task.source('train'), spec.task.encode, rows, spec.config.seed, spec.pad)
    return place(local, range(len(rows)), len(rows), spec.batch_sharding)


def padded_requests(spec: RunSpec, raws: list[Any], size: int) -> dict[str, np.ndarray]:
    """Returns one batch of requests, in the shapes of the last bucket if the task has buckets."""
    bucket, task = max(spec.bucketed, default=-1), spec.task

    def encode(raw: Any) -> dict[str, np.ndarray]:
        return task.buckets.pad(task.encode(raw), bucket) if task.buckets else task.encode(raw)

    return requests(encode, raws, size)


def padded_rows(spec: RunSpec, count: int) -> dict[str, np.ndarray]:
    """Returns encoded training rows with their targets, in the shapes of the last bucket if the task has buckets."""
    source, bucket = spec.task.source('train'), max(spec.bucketed, default=-1)
    rows = [Row(number % len(source), None, True, bucket) for number in range(count)]
    return encode_rows(source, spec.task.encode, rows, 0, spec.pad)


def run_steps(
    spec: RunSpec, compiled: Any, steps: int, state: State | None = None
) -> tuple[State, list[dict[str, Any]]]:
    """Returns the state after `steps` from `state` or the start, and the logs of each."""
    state, logs = state or spec.init(), []
    with jax.set_mesh(spec.mesh):
        for step in range(steps):
            state, each = compiled(state, batch_of(spec, step))
            logs.append(jax.device_get(each))
    return state, logs


def plan_of(name: str, folder: epath.Path, overrides: dict[str, str] | None = None) -> Planned:
    """Prepares and plans a config at ':tiny' on one device."""
    config = api.read(f'{name}:tiny', overrides)
    folder.mkdir(parents=True, exist_ok=True)
    api.prepare(config, folder)
    return Planned(config, folder, make_run_spec(config, api.build(config, folder), jax.devices()[:1]))


def first_state(planned: Planned) -> State:
    """The state before step 1, on the host."""
    return jax.tree.map(np.array, planned.spec.init())


def on_devices(values: Any, shapes: Any) -> Any:
    """Copies values of the host to devices, with the shardings of their shapes; the step may take the copies."""
    return jax.tree.map(lambda leaf, target: jax.device_put(np.array(leaf), target.sharding), values, shapes)


def build(planned: Planned, before: State) -> Built:
    """Compiles a spec and takes its first steps."""
    spec = planned.spec
    compiled = spec.compile()
    steps = max(STEPS, *spec.update_every.values())
    after, logs = run_steps(spec, compiled, steps, on_devices(before, spec.state))
    return Built(*planned, compiled, before, jax.device_get(after), logs, steps)


def metrics_of(built: Built, size: int) -> dict[str, float]:
    """The metrics after the first steps, on the evaluation split in batches of `size`."""
    spec = built.spec
    replicated = jax.sharding.NamedSharding(spec.mesh, jax.sharding.PartitionSpec())
    measure = make_evaluator(spec.task, 0, size, replicated)
    with jax.set_mesh(spec.mesh):
        split = built.config.train.eval_split
        return scalars(evaluate(spec.task, measure, eval_variables(built.after), split, whole=False)[0])


def assert_equal(left: Any, right: Any) -> None:
    """Asserts that two trees hold the same bits."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=jax.tree_util.keystr(path))
