"""What a run shows: one batch of examples, and at its end a gallery of any number of requests."""

import json
from types import SimpleNamespace

import jax
import numpy as np
from etils import epath

from research.core.evaluate import Evaluator
from research.core.samples import write_samples

SHARDING = jax.sharding.NamedSharding(
    jax.make_mesh((1,), ('data',), devices=jax.devices()[:1]), jax.sharding.PartitionSpec('data')
)


def task_of(seen):
    """Returns a task that answers twice a number and its place, and shows seven answers in its gallery."""

    def gallery(answer):
        seen.append(answer([{'x': number} for number in range(7)]))
        return {'all': np.zeros((2, 3, 3), np.uint8)}

    return SimpleNamespace(
        budget=None,
        examples=[{'x': 1}, {'x': 2}],
        encode=lambda raw, rng=None: {'x': np.float32(raw['x'])},
        decode=lambda outputs: {'y': float(outputs['y'])},
        render=lambda batch, outputs: {'plain': np.zeros((1, 1, 3), np.uint8)},
        final_pictures=gallery, split=None, join=None, buckets=None,
    )


def test_a_gallery_is_written_at_the_end_alone_and_answers_go_through_batches(tmp_path):
    seen = []
    measure = Evaluator(None, lambda _, batch, seed: {'y': batch['x'] * 2, 'place': batch['index']}, 0, 3, SHARDING)
    for step, last in ((1, False), (2, True)):
        write_samples(task_of(seen), measure, None, epath.Path(tmp_path), step, 'test', last)
    names = [sorted(file.name for file in (tmp_path / 'samples' / f'{step:08d}').iterdir()) for step in (1, 2)]
    assert names == [['examples.json', 'plain.png'], ['all.png', 'examples.json', 'plain.png']]
    (found,) = seen
    np.testing.assert_array_equal(found['y'], np.arange(7) * 2)
    np.testing.assert_array_equal(found['place'], np.arange(7))


def test_of_a_split_rows_from_all_over_it_are_shown_always_the_same(tmp_path):
    measure = Evaluator(None, lambda _, batch, seed: {'y': batch['x'] * 2}, 0, 8, SHARDING)
    task = task_of([])
    task.examples, task.source = [], lambda split: [{'x': number} for number in range(100)]
    shown = []
    for step in (1, 2):
        write_samples(task, measure, None, epath.Path(tmp_path), step, 'test')
        rows = json.loads((tmp_path / 'samples' / f'{step:08d}' / 'examples.json').read_text())
        shown.append([int(row['output']['y']) // 2 for row in rows])
    assert shown[0] == shown[1] and len(set(shown[0])) == 8 and max(shown[0]) > 50 > min(shown[0])
