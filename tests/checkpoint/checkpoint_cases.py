"""States that are a function of their step, and the short ways to save, damage and restore them."""

import os
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.checkpoint.store import open_checkpoints
from research.core.task import Variables

SCRIPT = pathlib.Path(__file__).parent / 'checkpoint_process.py'


class State(NamedTuple):
    step: object
    variables: Variables
    optimizer: dict
    ema: Variables | None


def state_at(step: int, size: int = 64) -> State:
    """Returns the state that the loop has after `step` updates: a function of the step alone."""
    kernel = (np.arange(size, dtype=np.float32) + 1) * step
    variables = Variables(
        {'model': {'kernel': kernel}}, {'model': {'batch_stats': {'mean': kernel[:4] - step}}}
    )
    return State(np.int32(step), variables, {'model': (kernel * 2, {'count': np.int32(step)})}, variables)


def flip(file: pathlib.Path) -> None:
    """Flips one bit in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


TARGET = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state_at(0))


def assert_equal(found, expected):
    """Same containers, dtypes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def on_device(step: int) -> State:
    return jax.tree.map(jnp.asarray, state_at(step))


def save_steps(folder, *steps: int, keep_last: int = 5, best: int = -1, **options) -> None:
    checkpoints = open_checkpoints(epath.Path(folder), keep_last, **options)
    for step in steps:
        checkpoints.save(step, on_device(step), {'at': step}, best=step == best)
    checkpoints.close()


def restore(folder, step=None, target=TARGET, **options):
    """Returns (step or None, what was said) after comparing the state with what that step must hold."""
    said = []
    checkpoints = open_checkpoints(epath.Path(folder), 2, **options)
    found = checkpoints.restore(target, step, say=said.append)
    checkpoints.close()
    if found is None:
        return None, said
    state, meta, step = found
    assert_equal(state, state_at(step))
    assert meta == {'at': step}
    return step, said


def snapshot(folder: pathlib.Path) -> dict:
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob('*')}


def environment() -> dict[str, str]:
    return {**os.environ, 'PYTHONPATH': str(SCRIPT.parents[2]), 'JAX_PLATFORMS': 'cpu'}
