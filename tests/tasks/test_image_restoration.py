"""Image restoration: tiles against whole pictures, metrics against their definition, requests of people."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import plan_of
from etils import epath
from PIL import Image

from research import api
from research.core.evaluate import evaluate, make_evaluator
from research.core.predictions import predictions
from research.core.task import Context
from research.data.image.resize import resize
from research.data.outputs import Picture
from research.data.sets.shapes import drawing
from research.errors import UserError
from research.models.restoration import margin_of, restoration_model
from research.ops.image_quality import psnr
from research.ops.picture_head import picture
from research.ops.pixels import depth_to_space, enlarge, space_to_depth

CONFIGS = {'denoise': 'ffdnet', 'super_resolution': 'subpixel', 'jpeg_artifacts': 'dncnn'}
MODELS = {
    'ffdnet': {'name': 'ffdnet', 'width': 6, 'depth': 3},
    'dncnn': {'name': 'dncnn', 'width': 6, 'depth': 4, 'norm': 'none'},
    'subpixel': {'name': 'subpixel', 'width': 6, 'blocks': 2},
}
CONTEXT = Context(jax.random.key(0), jnp.int32(0), False)


@pytest.fixture(scope='module', params=CONFIGS)
def planned(request, tmp_path_factory):
    """A config at ':tiny', prepared and planned on one device."""
    return plan_of(f'configs/{request.param}.py', epath.Path(tmp_path_factory.mktemp('restoration')))


def disturbed(variables):
    """Random weights everywhere, so that a network does more than to keep its input."""

    def leaf(value):
        return value + 0.2 * jax.random.normal(jax.random.key(value.size), value.shape)

    return variables._replace(params=jax.tree.map(leaf, variables.params))


def answers_of(task, variables, requests, batch_size=2):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), 'x')
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    measure = make_evaluator(task, 0, batch_size, sharding)
    return [outputs for _, outputs in predictions(task, measure, variables, requests)]


@pytest.mark.parametrize('name', MODELS)
def test_an_output_depends_on_no_pixel_beyond_the_reach(name):
    scale = 3 if name == 'subpixel' else 1
    model = restoration_model(MODELS[name], scale)
    variables = disturbed(model.init(jax.random.key(0)))
    side, middle = 2 * margin_of(model) + 12, margin_of(model) + 6

    def corner(image):
        batch = {'image': image[None, ..., None], 'level': jnp.full(1, 0.1)}
        images = model.apply(variables, batch, CONTEXT)[0]
        return images[0, middle * scale : (middle + 2) * scale, middle * scale, 0].sum()

    # Random pictures, as a ReLU may hide a dependency in one of them.
    gradient = sum(
        jnp.abs(jax.jit(jax.grad(corner))(jax.random.normal(jax.random.key(seed), (side, side)))) for seed in range(4)
    )
    rows = np.flatnonzero(np.asarray(gradient).sum(1))
    assert middle - rows[0] <= model.module.reach <= margin_of(model)
    assert middle - rows[0] > 2  # the test could fail


def test_tiled_equals_untiled(planned):
    task, variables = planned.spec.task, disturbed(planned.spec.init().variables)
    request = {'image': drawing(0, 5, 50, 3)}
    tiled = answers_of(task, variables, [request])[0]['image']
    large = {**planned.config.task, 'tile': 64}
    untiled_task = api.build(dataclasses.replace(planned.config, task=large), planned.folder)
    assert len(task.split(request)) > len(untiled_task.split(request)) >= 1
    untiled = answers_of(untiled_task, variables, [request])[0]['image']
    assert tiled.shape == untiled.shape and tiled.std() > 0.01
    np.testing.assert_allclose(tiled, untiled, atol=2e-5)


def test_a_tile_without_its_margin_would_show(planned):
    task, variables = planned.spec.task, disturbed(planned.spec.init().variables)
    stored = json.loads((planned.folder / 'restoration.json').read_text())
    (planned.folder / 'restoration.json').write_text(json.dumps({**stored, 'margin': 0}))
    try:
        without = api.build(planned.config, planned.folder)
    finally:
        (planned.folder / 'restoration.json').write_text(json.dumps(stored))
    request = {'image': drawing(0, 5, 50, 1)}
    with_margin, bare = (answers_of(each, variables, [request])[0]['image'] for each in (task, without))
    assert np.abs(with_margin - bare).max() > 1e-3


def test_metrics_are_those_of_the_whole_pictures(planned):
    task, variables, config = planned.spec.task, disturbed(planned.spec.init().variables), planned.config
    scale = config.task.get('scale', 3) if config.task['degradation'] == 'bicubic' else 1
    rows = task.source('test')
    task = task._replace(source=lambda split: rows[:3])
    measure = make_evaluator(task, 0, 2, planned.spec.batch_sharding)
    metrics = evaluate(task, measure, variables, 'test').metrics
    ratios, inputs, squares, pixels = [], [], 0.0, 0
    for row, outputs in zip(rows[:3], answers_of(task, variables, rows[:3]), strict=True):
        image, target = outputs['image'][..., 0].astype(np.float64) * 255, row['target'][..., 0].astype(float)
        assert image.shape == target.shape
        squares, pixels = squares + ((image - target) ** 2).sum(), pixels + target.size
        degraded = outputs['input'].astype(np.float64) * 255
        if config.task['degradation'] != 'noise':
            image, degraded = np.clip(np.round(image), 0, 255), np.clip(np.round(degraded), 0, 255)
        border = slice(scale, -scale) if scale > 1 else slice(None)
        ratios.append(psnr(image[border, border], target[border, border]))
        inputs.append(psnr(degraded[border, border], target[border, border]))
    np.testing.assert_allclose(metrics['psnr'].value, np.mean(ratios), atol=2e-3)
    np.testing.assert_allclose(metrics['psnr'].baseline, np.mean(inputs), atol=2e-3)
    np.testing.assert_allclose(metrics['mse'].value, squares / pixels, rtol=1e-4)
    assert -1 <= metrics['ssim'].value <= 1 and metrics['ssim'].baseline > 0


def test_requests_of_any_size_and_colour_are_restored(planned):
    task, variables = planned.spec.task, planned.spec.init().variables
    scale = 3 if planned.config.task['degradation'] == 'bicubic' else 1
    images = [drawing(0, 1, 40, 3), drawing(0, 2, 33, 1), np.full((5, 3), 200, np.uint8)]
    for image, outputs in zip(images, answers_of(task, variables, [{'image': i} for i in images]), strict=True):
        image = np.atleast_3d(image)
        answer = task.decode(outputs)
        pixels = answer['image'].pixels
        assert isinstance(answer['image'], Picture) and list(answer) == ['image']
        assert pixels.shape == (image.shape[0] * scale, image.shape[1] * scale, image.shape[2])
        expected = resize(image, scale) if scale > 1 else image
        # An untrained network keeps its input, apart from noise of its last layer.
        assert np.abs(pixels * 255 - expected).mean() < 40


def test_answers_of_rows_show_input_truth_and_errors(planned):
    task, row = planned.spec.task, planned.spec.task.source('test')[0]
    answer = task.decode(answers_of(task, planned.spec.init().variables, [row])[0])
    shapes = {np.shape(value.pixels)[:2] for value in answer.values() if isinstance(value, Picture)}
    assert list(answer)[:4] == ['image', 'input', 'truth', 'error_times_5'] and len(shapes) == 1
    assert answer['psnr'] > 5 and answer['input_psnr'] > 5


def test_pictures_are_shared_by_all_layouts(planned):
    """The degraded tiles of a row are the same however often and in which process they are made."""
    task = planned.spec.task
    again = api.build(planned.config, planned.folder)
    for number in (0, 3):
        ours, theirs = (each.split(each.source('test')[number]) for each in (task, again))
        for left, right in zip(ours, theirs, strict=True):
            for name in left['tile']:
                np.testing.assert_array_equal(left['tile'][name], right['tile'][name])


def test_pixels_that_are_nan_do_not_count():
    head = picture(0.1, 'l1', lambda outputs: None, '')
    images = jnp.full((1, 2, 2, 1), 0.5)
    targets = jnp.array([0.3, jnp.nan, 0.5, 0.6]).reshape(1, 2, 2, 1)
    np.testing.assert_allclose(head.loss(images, targets), [0.1], rtol=1e-5)
    sums = head.sums(images, targets, jnp.ones(1))
    np.testing.assert_allclose([sums['square'], sums['pixels']], [255**2 * 0.05, 3], rtol=1e-5)
    assert np.isfinite(jax.grad(lambda i: head.loss(i, targets).sum())(images)).all()
    assert np.isfinite(jax.grad(lambda i: head.score(i, targets).sum())(images)).all()
    np.testing.assert_allclose(head.score(images, targets), [-(2.0**2 + 1.0) / 2], rtol=1e-5)  # in deviations
    np.testing.assert_allclose(head.logs(images, targets, jnp.zeros(1))['mse'], 0)


def test_pixels_move_between_space_and_channels_and_back():
    images = jnp.arange(2 * 4 * 6 * 1.0).reshape(2, 4, 6, 1)
    squares = space_to_depth(images, 2)
    assert squares[0, 0, 0].tolist() == [0, 1, 6, 7]
    np.testing.assert_array_equal(depth_to_space(squares, 2), images)


def test_enlarging_on_the_device_equals_that_on_the_host_inside():
    image = np.random.default_rng(0).random((20, 16)).astype(np.float32)
    for factor in (2, 3, 4):
        ours = np.asarray(enlarge(image[None, ..., None], factor))[0, ..., 0]
        inside = slice(2 * factor, -2 * factor)
        np.testing.assert_allclose(ours[inside, inside], resize(image, factor)[inside, inside], atol=1e-5)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        ({'task.sigma': '300.0'}, 'sigma must be at least zero and at most 255'),
        ({'task.degradation': 'blur'}, "'noise' or 'bicubic' or 'jpeg'"),
        ({'task.degradation': 'bicubic', 'task.scale': '5'}, 'scale must be at least 2 and at most 4'),
        ({'task.degradation': 'jpeg', 'task.quality': '0'}, 'quality must be at least 1 and at most 95'),
        ({'task.blind': '(50.0, 5.0)'}, r'blind must be \(\), or \(low, high\)'),
        ({'task.patch': '18'}, 'patch must be a multiple of 4'),
        ({'task.degradation': 'bicubic', 'task.patch': '24'}, "cannot enlarge a picture; choose 'subpixel'"),
        ({'model.depth': '1'}, 'depth must be 2 or more'),
    ],
)
def test_impossible_settings_are_refused(overrides, message, tmp_path):
    with pytest.raises(UserError, match=message):
        plan_of('configs/denoise.py', epath.Path(tmp_path), overrides)


def test_own_pictures_train_and_predict_writes_a_picture(tmp_path):
    for number in range(14):
        Image.fromarray(drawing(1, number, 40, 3)).save(tmp_path / f'{number}.png')
    data = {'data.train': str(tmp_path), 'data.reader': 'image_folder', 'data.test_fraction': '0.2',
            'data.validation_fraction': '0.2'}  # fmt: skip
    config = api.read('configs/denoise.py:own,tiny', {})
    assert config.data['name'] == 'shapes'  # the last variant wins
    folder = epath.Path(tmp_path / 'prepared')
    config = api.read('configs/denoise.py:tiny,own', {**data, 'train.batch_size': '4'})
    api.prepare(config, folder)
    task = api.build(config, folder)
    assert len(task.source('train')) + len(task.source('validation')) + len(task.source('test')) == 14
    assert task.source('train')[0]['target'].shape[-1] == 1
