"""The classifier's parts: what is stored, encoded, lost, measured, answered and drawn."""

import io
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from PIL import Image

from research.core.task import Context
from research.data.digits import digits
from research.data.images import PAPER, RED
from research.errors import UserError
from research.tasks import image_classification

MLP = {'name': 'mlp', 'widths': (8,)}
RESNET = {'name': 'resnet', 'widths': (4,), 'depths': (1,)}


def settings(model=MLP, data=None, **task):
    return SimpleNamespace(
        task={'name': 'image_classification', **task},
        model=model,
        data=data or {'name': 'digits'},
        methods=(),
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = epath.Path(tmp_path_factory.mktemp('prepared')) / 'new'
    image_classification.prepare(settings(), path)
    return path


def batch_of(task, count, split='train'):
    rows = [task.encode(row) for row in task.source(split)[:count]]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**batch, 'index': np.arange(count, dtype=np.int32), 'mask': np.ones(count, np.float32)}


def context(train=False):
    return Context(jax.random.key(0), jnp.int32(0), train)


def test_prepare_stores_statistics_of_the_training_split_alone(folder):
    stored = json.loads((folder / 'classes.json').read_text())
    rows = digits().source('train')
    pixels = np.stack([row['image'] for row in rows]).astype(np.float64)
    np.testing.assert_allclose(stored['mean'], [pixels.mean()], rtol=1e-6)
    np.testing.assert_allclose(stored['std'], [pixels.std()], rtol=1e-6)
    assert stored['counts'] == np.bincount([row['label'] for row in rows]).tolist()
    assert stored['classes'] == list('0123456789') and stored['shape'] == [8, 8, 1]


def test_encoding_without_an_rng_is_the_scan_itself_and_with_one_moves_it(folder):
    task = image_classification.make(settings(shift=1, flip=True), folder)
    row = task.source('train')[3]
    np.testing.assert_array_equal(task.encode(row)['image'], row['image'])
    seen = {task.encode(row, np.random.default_rng(seed))['image'].tobytes() for seed in range(200)}
    assert len(seen) == 18  # 3 x 3 places, mirrored or not
    again = [task.encode(row, np.random.default_rng([1, 2, 3]))['image'] for _ in range(2)]
    np.testing.assert_array_equal(*again)
    assert task.encode(row)['label'] == row['label']


def test_requests_may_be_bytes_arrays_or_lists_of_any_size(folder):
    task = image_classification.make(settings(), folder)
    scan = task.source('test')[0]['image']
    pixels = np.round(scan[..., 0] * 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'PNG')
    requests = [
        scan,
        scan[..., 0].tolist(),
        pixels,
        pixels.tolist(),
        buffer.getvalue(),
    ]
    requests += [pixels.repeat(4, 0).repeat(4, 1), np.stack([pixels] * 3, axis=-1)]
    for request in requests:
        encoded = task.encode({'image': request})
        assert set(encoded) == {'image'} and encoded['image'].shape == (8, 8, 1)
        assert encoded['image'].dtype == np.float32
        tolerance = 0.3 if np.ndim(request) == 2 and np.shape(request) == (32, 32) else 0.01
        np.testing.assert_allclose(encoded['image'], scan, atol=tolerance)


@pytest.mark.parametrize(('request_', 'message'), [
    ({}, "no 'image'"),
    ({'image': np.zeros((4, 4, 4, 4))}, r'each side 1 to 8192; got float64 \[4, 4, 4, 4\]'),
    ({'image': 'secret.png'}, 'give the bytes of a file'),
    ({'image': np.zeros((8, 8)), 'label': 10}, '10 is none of the 10 classes'),
])  # fmt: skip
def test_impossible_requests_are_refused(folder, request_, message):
    with pytest.raises(UserError, match=message):
        image_classification.make(settings(), folder).encode(request_)


@pytest.mark.parametrize('model', [MLP, RESNET])
def test_loss_is_a_sum_of_cross_entropies_and_statistics_are_kept(folder, model):
    task = image_classification.make(settings(model, label_smoothing=0.1), folder)
    variables, batch = task.init(jax.random.key(1)), batch_of(task, 6)
    total, aux = task.losses['model'](variables, batch, context(train=True))
    logits = np.asarray(aux.outputs['logits'], np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    target = 0.9 * np.eye(10)[batch['label']] + 0.01
    assert total == pytest.approx(-(target * log_probability).sum(), rel=1e-4)
    assert aux.weight == 6
    assert aux.logs['accuracy'] == (logits.argmax(-1) == batch['label']).sum()
    changes = {'batch_stats'} if model is RESNET else set()
    assert set(aux.extra.get('model', {})) == changes == set(variables.extra.get('model', {}))
    _, still = task.losses['model'](variables, batch, context(train=False))
    for old, new in zip(jax.tree.leaves(variables.extra), jax.tree.leaves(still.extra), strict=True):
        np.testing.assert_array_equal(old, new)


def test_padding_changes_neither_loss_nor_figures(folder):
    task = image_classification.make(settings(), folder)
    variables, batch = task.init(jax.random.key(1)), batch_of(task, 8)
    short = {name: value[:5] for name, value in batch.items()}
    padded = {**batch, 'mask': np.float32([1, 1, 1, 1, 1, 0, 0, 0])}
    (one, aux), (two, other) = (
        task.losses['model'](variables, each, context(True)) for each in (short, padded)
    )
    assert one == pytest.approx(float(two), rel=1e-6) and aux.weight == other.weight == 5
    first, second = (
        task.figures(jax.device_get(task.metrics(variables, b, context()))) for b in (short, padded)
    )
    for name in first:
        np.testing.assert_allclose(first[name].value, second[name].value, rtol=1e-6, err_msg=name)


def test_predictions_are_probabilities_and_decode_names_the_class(folder):
    task = image_classification.make(settings(), folder)
    outputs = task.predict(task.init(jax.random.key(1)), batch_of(task, 4), context(train=True))
    np.testing.assert_allclose(outputs['probability'].sum(-1), 1, rtol=1e-6)
    probability = np.float32([0.0, 0.1, 0.0, 0.6, 0.0, 0.0, 0.0, 0.3, 0.0, 0.0])
    answer = task.decode({'logits': np.log(probability + 1e-9), 'probability': probability})
    assert json.loads(json.dumps(answer)) == answer
    assert (answer['label'], answer['probability']) == ('3', pytest.approx(0.6))
    assert [each['label'] for each in answer['top']][:3] == ['3', '7', '1'] and len(answer['top']) == 5


def test_wrong_pictures_come_first_in_a_red_frame_and_padding_is_left_out(folder):
    task = image_classification.make(settings(), folder)
    batch = {'image': np.zeros((4, 8, 8, 1), np.float32), 'label': np.array([1, 2, 3, 4])}
    batch['mask'] = np.float32([1, 1, 1, 0])
    logits = np.eye(10)[[1, 2, 9, 9]]  # the third is wrong, the fourth is padding
    picture = task.render(batch, {'logits': logits})['right_and_wrong']
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    width = picture.shape[1] // 3
    corners = [tuple(picture[0, number * width]) for number in range(3)]
    assert corners == [RED, PAPER, PAPER]
    del batch['label']
    assert not (task.render(batch, {'logits': logits})['right_and_wrong'] == RED).all(-1).any()


@pytest.mark.parametrize(('config', 'message'), [
    (settings(shfit=1), "did you mean 'shift'"),
    (settings(shift=-1), 'zero or more'),
    (settings(label_smoothing=1.0), 'label_smoothing'),
    (settings({'name': 'resnt'}), "did you mean 'resnet'"),
    (settings({'name': 'mlp', 'depths': (1,)}), 'config.model.depths'),
    (settings(data={'name': 'digit'}), "did you mean 'digits'"),
    (settings(data={'name': 'digits', 'sise': 8}), 'config.data.sise'),
])  # fmt: skip
def test_impossible_settings_are_refused(folder, config, message):
    with pytest.raises(UserError, match=message):
        image_classification.make(config, folder)
