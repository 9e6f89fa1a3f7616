"""Processes that test_checkpoint.py starts: one that it kills, and a pair that saves and restores together.

python tests/checkpoint/checkpoint_process.py loop FOLDER COMMIT_FILE
python tests/checkpoint/checkpoint_process.py pair FOLDER PORT PROCESS
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from checkpoint_cases import flip, state_at
from etils import epath
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.checkpoint.store import open_checkpoints, read_weights


def loop(folder: str, commit_file: bool) -> None:
    """Saves a step after another until it is killed; every third one is the best."""
    checkpoints = open_checkpoints(epath.Path(folder), keep_last=2, commit_file=commit_file)
    found = checkpoints.restore(state_at(0), say=lambda text: print('SAID', text, flush=True))
    step = 0 if found is None else found[2]
    print('READY', step, flush=True)
    while True:
        step += 1
        checkpoints.save(step, jax.tree.map(jnp.asarray, state_at(step)), {'step': step}, best=step % 3 == 0)
        print('SAVING', step, flush=True)


def pair(folder: str, port: str, process: int) -> None:
    """Saves from two processes of two devices each, damages the newest step, and restores the one before."""
    jax.config.update('jax_platforms', 'cpu')
    jax.config.update('jax_num_cpu_devices', 2)
    jax.distributed.initialize(f'127.0.0.1:{port}', num_processes=2, process_id=process)
    mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,))

    def sharding(leaf):
        return NamedSharding(
            mesh, PartitionSpec('data') if leaf.ndim and leaf.shape[0] % 4 == 0 else PartitionSpec()
        )

    def put(leaf):
        return jax.make_array_from_callback(leaf.shape, sharding(leaf), lambda index: leaf[index])

    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding(leaf)), state_at(0)
    )
    checkpoints = open_checkpoints(epath.Path(folder), keep_last=2)
    assert checkpoints.restore(target) is None
    for step in range(1, 5):
        checkpoints.save(
            step, jax.tree.map(put, jax.tree.map(np.asarray, state_at(step))), {'step': step}, best=step == 1
        )
    said = []
    for wanted in (4, 3):
        state, meta, step = checkpoints.restore(target, say=said.append)
        assert step == wanted and meta == {'step': wanted}, (step, meta)
        for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(state_at(wanted)), strict=True):
            for shard in found.addressable_shards:
                np.testing.assert_array_equal(shard.data, np.asarray(expected)[shard.index])
        if process == 0 and wanted == 4:
            flip(pathlib.Path(folder) / 'checkpoints' / '4' / 'weights' / 'manifest.ocdbt')
        jax.experimental.multihost_utils.sync_global_devices('damaged')
    assert len(said) == (1 if process == 0 else 0), said
    checkpoints.save(4, jax.tree.map(put, jax.tree.map(np.asarray, state_at(4))), {'step': 4})
    checkpoints.wait()
    if process == 0:
        assert checkpoints.steps() == [1, 3, 4] and checkpoints.best() == 1
        weights = read_weights(epath.Path(folder))  # alone: no other process takes part
        np.testing.assert_array_equal(
            weights['ema'].params['model']['kernel'], state_at(4).ema.params['model']['kernel']
        )
    checkpoints.close()
    print('DONE', flush=True)


if __name__ == '__main__':
    if sys.argv[1] == 'loop':
        loop(sys.argv[2], sys.argv[3] == 'True')
    else:
        pair(sys.argv[2], sys.argv[3], int(sys.argv[4]))
