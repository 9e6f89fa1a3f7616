"""The task of sounds: rows, splits, models, augmentation by (seed, epoch, index), files and folders of a user."""

import functools
import json

import jax
import numpy as np
import pytest
import soundfile
from etils import epath

from research import api
from research.core.task import Context
from research.data.audio.sounds import SoundRow
from research.data.batches import LazyGenerator, Row, encode_rows
from research.data.sets.tones import RATE, tone
from research.errors import UserError, task_settings
from research.inference.model import check_request
from research.inference.requests import read_requests
from research.models.audio import sound_model
from research.ops.spectrograms import spectrograms
from research.tasks import audio_classification


def build(folder, config='configs/spoken_digits.py:tiny', **overrides):
    """Returns a config's task, prepared in `folder`."""
    config = api.load_config(config)
    with config.unlocked():
        for name, values in overrides.items():
            config[name] = values if 'name' in values else {**config[name].to_dict(), **values}
    read = api.read(config)
    api.prepare(read, epath.Path(folder))
    return api.build(read, epath.Path(folder))


@pytest.fixture(scope='module')
def task(tmp_path_factory):
    return build(tmp_path_factory.mktemp('prepared'))


def context(train=False, seed=0):
    return Context(jax.random.key(seed), np.int32(0), train)


def batch_of(task, numbers, epoch=None):
    return encode_rows(task.source('train'), task.encode, [Row(number, epoch, True) for number in numbers], 0)


def test_a_row_is_samples_a_number_to_draw_from_and_a_label(task):
    rows = task.source('train')
    assert isinstance(rows[0], SoundRow)
    row = task.encode(rows[0])
    assert row['audio'].shape == (2000,) and row['audio'].dtype == np.float32 and row['draw'] == 0
    assert row['label'] == 0 and row['label'].dtype == np.int32
    np.testing.assert_array_equal(row['audio'], task.encode(dict(rows[0]))['audio'])  # as a request gives it
    with pytest.raises(UserError, match="did you mean 'low'"):
        task.encode({**rows[0], 'label': 'lo'})


def test_augmentation_is_a_function_of_seed_epoch_and_index(task):
    def drawn(seed, epoch, index):
        return task.encode(task.source('train')[0], LazyGenerator(seed, epoch, index))['draw']

    assert drawn(1, 2, 3) == drawn(1, 2, 3)
    assert len({int(drawn(*each)) for each in ((1, 2, 3), (0, 2, 3), (1, 0, 3), (1, 2, 0))}) == 4
    settings = task_settings(audio_classification.Settings, api.load_config('configs/spoken_digits.py:tiny'))
    features = jax.jit(functools.partial(spectrograms, settings.spectrograms(-10.0, 3.0)), static_argnums=1)
    first, later = batch_of(task, [1, 2], 0), batch_of(task, [1, 2], 1)
    np.testing.assert_array_equal(features(first, True), features(batch_of(task, [1, 2], 0), True))
    assert not np.array_equal(features(first, True), features(later, True))
    np.testing.assert_array_equal(features(first, False), features(later, False))
    assert not np.array_equal(features(first, True), features(first, False))


def test_mixed_pairs_train_and_rows_of_an_evaluation_are_independent(tmp_path):
    task = build(tmp_path, 'configs/sound_events.py:tiny')
    variables = task.init(jax.random.key(0))
    loss = jax.jit(lambda batch: task.losses['model'](variables, batch, context(True)))
    total, aux = loss(batch_of(task, [0, 1, 2, 3], 0))
    assert np.isfinite(total) and aux.weight == 4 and aux.extra['model']['batch_stats']
    predict = jax.jit(lambda batch: task.predict(variables, batch, context())['logits'])
    logits = predict(batch_of(task, [0, 1, 2, 3]))
    np.testing.assert_allclose(predict(batch_of(task, [2, 2, 2, 0]))[0], logits[2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('model', [
    {'name': 'resnet', 'widths': (4,), 'depths': (1,)},
    {'name': 'transformer', 'patch': 8, 'width': 8, 'layers': 1, 'heads': 2, 'positions': 'learned'},
])  # fmt: skip
def test_other_models_give_finite_scores(tmp_path, model):
    task = build(tmp_path, model=model)
    logits = jax.jit(lambda batch: task.predict(task.init(jax.random.key(0)), batch, context())['logits'])(
        batch_of(task, [0, 1])
    )
    assert logits.shape == (2, 4) and np.isfinite(logits).all() and np.abs(logits[0] - logits[1]).max() > 0


def test_the_tutorials_network_has_its_shapes():
    config = api.load_config('configs/tutorials/audio.py')
    settings = task_settings(audio_classification.Settings, config)
    assert (settings.mels, settings.mel.frames(settings.samples)) == (24, 24)
    shapes = jax.eval_shape(sound_model(config.model, 10, settings.shape).init, jax.random.key(0)).params['model']
    kernels = {name: leaves['kernel'].shape for name, leaves in shapes.items()}
    assert kernels == {
        'conv_0_0': (3, 3, 1, 32), 'conv_1_0': (3, 3, 32, 64), 'hidden_0': (64 * 6 * 6, 1024), 'hidden_1': (1024, 512),
        'head': (512, 10),
    }  # fmt: skip


@pytest.mark.parametrize(('section', 'values', 'message'), [
    ('task', {'seconds': -1.0}, 'seconds must be at least zero and at most'),
    ('task', {'seconds': 0.02}, 'less than one window'),
    ('task', {'sample_rate': 10}, 'sample_rate must be at least 1,000'),
    ('task', {'mels': 200}, 'config.task.mels=200'),
    ('task', {'band_mask': 17}, 'band_mask=17 does not fit'),
    ('task', {'mixup': 0.6}, 'mixup must be at least zero and at most 0.5'),
    ('model', {'name': 'convnett'}, "did you mean 'convnet'"),
    ('model', {'filters': (4,) * 6}, '6 layers halve both sides'),
    ('model', {'name': 'transformer', 'patch': 0}, 'config.model.patch must be above zero'),
])  # fmt: skip
def test_settings_that_cannot_be_are_named(tmp_path, section, values, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(build(tmp_path, **{section: values}).init, jax.random.key(0))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Sounds of two kinds in two formats and rates, in a folder for each."""
    folder = tmp_path_factory.mktemp('sounds')
    for number in range(30):
        kind = ('low', 'high')[number % 2]
        (folder / kind).mkdir(exist_ok=True)
        rate = RATE * (1 + number % 3)
        sound = np.repeat(tone(kind, 0, number), 1 + number % 3)
        soundfile.write(folder / kind / f'{number}.{("wav", "flac")[number % 4 // 2]}', sound, rate)
    return folder


def test_a_folder_of_sounds_is_split_and_its_files_are_requests(folder, tmp_path):
    task = build(tmp_path, 'configs/spoken_digits.py:own', model={'filters': (4,)}, data={'train': str(folder)})
    parts = [task.source(split) for split in ('train', 'validation', 'test')]
    assert sum(map(len, parts)) == 30 and parts[0].label(0) in ('low', 'high')
    files = [folder / 'low' / '0.wav', folder / 'high' / '3.flac']
    requests = read_requests(task.inputs, list(map(str, files)))
    samples, rate = soundfile.read(files[1])
    encoded = [check_request(task, raw) for raw in (*requests, {'audio': samples, 'rate': rate})]
    batch = {name: np.stack([task.encode(raw)[name] for raw in encoded]) for name in ('audio', 'draw')}
    assert batch['audio'].shape == (3, 8000)  # sounds of up to 0.3 s: the shortest input of :own
    np.testing.assert_allclose(batch['audio'][1], batch['audio'][2], atol=1e-6)
    variables = task.init(jax.random.key(0))
    outputs = jax.device_get(jax.jit(lambda batch: task.predict(variables, batch, context()))(batch))
    answers = [task.decode({name: value[row] for name, value in outputs.items()}) for row in range(3)]
    assert json.dumps(answers) and {answer['label'] for answer in answers} <= {'low', 'high'}


@pytest.fixture(scope='module')
def long_sounds(tmp_path_factory):
    """Noise of 1 s, and one of ten sounds of 3 s; all are for training."""
    folder, rng = tmp_path_factory.mktemp('long'), np.random.default_rng(0)
    for number in range(30):
        (folder / 'ab'[number % 2]).mkdir(exist_ok=True)
        samples = rng.normal(size=RATE * (3 if number % 10 == 0 else 1)) * 0.1
        soundfile.write(folder / 'ab'[number % 2] / f'{number}.wav', samples, RATE)
    return folder


def build_long(tmp_path, folder, **task):
    data = {'train': str(folder), 'validation_fraction': 0.0, 'test_fraction': 0.0}
    config = 'configs/spoken_digits.py:own'
    return build(tmp_path, config, model={'filters': (4,)}, data=data, task={'sample_rate': RATE, **task})


def test_the_share_of_sounds_that_is_cut_is_noted(long_sounds, tmp_path):
    (note,) = build_long(tmp_path / 'cut', long_sounds, seconds=2.0).notes()
    assert note == (
        '10.0% of the training rows are longer than the 2.0 seconds that the model reads (config.task.seconds) and '
        'lose 8.3% of all seconds; the longest has 3.0'  # 3 of 27 + 9 seconds
    )
    assert not build_long(tmp_path / 'whole', long_sounds, seconds=3.0).notes()
    assert not build_long(tmp_path / 'crops', long_sounds, seconds=1.0, random_crop=True).notes()


def test_the_length_of_the_input_follows_from_the_sounds(long_sounds, tmp_path):
    task = build_long(tmp_path, long_sounds)
    assert task.encode(task.source('train')[0])['audio'].shape == (3 * RATE,) and not task.notes()
    assert 'reads 3 s' in task.inputs['audio'].about

    class Rows(list):
        def prepared(self, number):
            return np.zeros(self[number])

    seconds = audio_classification.typical_seconds
    assert seconds(Rows([1040] * 96 + [9000] * 4), 1000) == 1.1  # 95% are whole
    assert seconds(Rows([1100] * 9), 1000) == 1.1 and seconds(Rows([20]), 1000) == 0.5
    assert seconds(Rows([10**6]), 1000) == 30.0


def test_a_broken_file_of_a_folder_is_named_and_found_by_a_look_at_the_data(folder, tmp_path, capsys):
    from research.data.check.task import check_data

    (folder / 'low' / 'broken.wav').write_bytes(b'RIFF no sound at all')
    soundfile.write(folder / 'low' / 'short.wav', np.zeros(8), RATE)
    try:
        config = api.read('configs/spoken_digits.py:own', {'data.train': str(folder)})
        surveys, findings = check_data(config, api.prepare, api.build)
        text = '\n'.join(finding.text for finding in findings)
        assert 'broken.wav: cannot be read as sound' in text and 'short.wav: the sound has 8 samples' in text, text
        assert sum(len(survey.numbers) for survey in surveys) == 31
        with pytest.raises(UserError, match=r'(broken.wav|short.wav): '):
            api.prepare(config, epath.Path(tmp_path))
    finally:
        (folder / 'low' / 'broken.wav').unlink()
        (folder / 'low' / 'short.wav').unlink()
