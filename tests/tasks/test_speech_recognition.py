"""Speech recognition from end to end: tables of recordings, stored features, answers, metrics, refusals."""

import csv
import io
import json
import sys
import wave

import jax
import numpy as np
import pytest
from etils import epath

from research import api
from research.core.runspec import make_run_spec
from research.data.check.task import check_data
from research.data.sets import spelled_tones
from research.errors import UserError
from research.tasks import speech_recognition

SMALL = {
    'config.task.sample_rate': '8000', 'config.task.mels': '12', 'config.task.band_mask': '3',
    'config.task.seconds': '4.0', 'config.model.width': '16', 'config.model.layers': '1', 'config.model.heads': '2',
}  # fmt: skip


def wav(samples):
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(spelled_tones.RATE)
        file.writeframes(np.round(samples * 32767).astype('<i2').tobytes())
    return buffer.getvalue()


def write_table(folder, rows=24, last=''):
    """Writes recordings and their table: the files lie beside it; one last transcript may not fit its sound."""
    lines = []
    for number in range(rows):
        text = spelled_tones.text_of(0, number)
        (folder / f'{number}.wav').write_bytes(wav(spelled_tones.tones(text, 0, number)))
        lines.append((f'{number}.wav', last if last and number == rows - 1 else text))
    with (folder / 'mine.csv').open('w') as file:
        csv.writer(file).writerows([('file', 'transcript'), *lines])
    return {**SMALL, 'config.data.train': str(folder / 'mine.csv')}


def config_of(name, overrides=None):
    return api.read(name, {key.removeprefix('config.'): value for key, value in (overrides or {}).items()})


def planned(config, folder):
    api.prepare(config, folder)
    return make_run_spec(config, api.build(config, folder), jax.devices()[:1])


def test_a_table_of_recordings_is_prepared_and_traced(tmp_path):
    overrides = write_table(tmp_path, last='a b c d a b c d a b c d a b c d a b c d a b c d a b c d a b c d a b c d')
    every = {'data.validation_fraction': '0.0', 'data.test_fraction': '0.0'}
    every |= {'train.eval_split': '', 'train.test_split': ''}
    spec = planned(config_of('configs/an4.py:own', overrides | every), epath.Path(tmp_path / 'run'))
    assert len(spec.task.source('train')) == 23
    notes = spec.task.notes()
    assert len(notes) == 1 and 'mine.csv, line 25' in notes[0] and '1 training utterances' in notes[0]
    with jax.set_mesh(spec.mesh):
        _, logs = jax.eval_shape(spec.step(), spec.state, spec.batch)
    assert 'loss' in logs
    with pytest.raises(UserError, match="line 25 .* needs 71 of .* mend the transcript"):
        planned(config_of('configs/an4.py:own', overrides | {'config.task.unfit': 'stop'} | every), tmp_path / 'two')


def test_the_data_of_a_table_are_checked(tmp_path):
    overrides = write_table(tmp_path) | {'config.data.validation_fraction': '0.2', 'config.data.test_fraction': '0.2'}
    surveys, findings = check_data(config_of('configs/an4.py:own', overrides), api.prepare, api.build)
    assert sum(seen.total for seen in surveys) == 24
    assert not [finding for finding in findings if finding.level == 'error']
    (tmp_path / '3.wav').write_bytes(b'no sound')
    _, findings = check_data(config_of('configs/an4.py:own', overrides), api.prepare, api.build)
    assert any('3.wav' in finding.text for finding in findings)


def test_stored_features_are_checked(tmp_path):
    _, findings = check_data(config_of('configs/an4.py:tiny'), api.prepare, api.build)
    assert not [finding for finding in findings if finding.level == 'error']


@pytest.fixture(scope='module')
def tones(tmp_path_factory):
    """A model that has learned the tones: (run, config)."""
    folder = tmp_path_factory.mktemp('tones')
    overrides = {
        'train.steps': '40', 'train.batch_size': '16', 'train.eval_every': '40', 'train.checkpoint_every': '40',
        'train.log_every': '20', 'data.examples': '240', 'model.width': '32', 'model.layers': '1',
        'optimizer.model.learning_rate': '0.01', 'task.buckets': '1',
    }  # fmt: skip
    return api.run('configs/an4.py:tiny', folder / 'run', overrides), folder / 'run'


@pytest.mark.slow
def test_words_spelled_by_tones_are_learned(tones):
    run, _ = tones
    metrics = run.metrics['test']
    assert metrics['wer'] < 10 and metrics['cer'] < 10
    assert {'wer_greedy', 'cer_greedy', 'sentence_errors', 'wer_new', 'unfit', 'loss'} <= metrics.keys()


@pytest.mark.slow
def test_a_request_is_answered_the_same_alone_and_among_others(tones):
    _, workdir = tones
    model = api.load(workdir)
    texts = [spelled_tones.text_of(5, number) for number in range(12)]
    requests = [{'features': spelled_tones.frames(text, 5, row).tolist()} for row, text in enumerate(texts)]
    together = model.predict(requests)
    assert together[:3] == [model(request) for request in requests[:3]]
    assert sum(answer['text'] == text.upper() for answer, text in zip(together, texts, strict=True)) >= 10
    with pytest.raises(UserError, match='at least 4 frames'):
        model({'features': [[0.0] * 13]})
    with pytest.raises(UserError, match='features'):
        model({'audio': 'hello.wav'})


def test_the_host_part_needs_no_flax(tmp_path):
    config = config_of('configs/an4.py:tiny')
    api.prepare(config, epath.Path(tmp_path))
    plan = json.loads((tmp_path / 'plan.json').read_text())
    assert plan['kept'] == list(range(64)) and not plan['unfit']
    loaded = {name for name in sys.modules if name.startswith('flax')}
    host = speech_recognition.host(config, epath.Path(tmp_path))
    assert {name for name in sys.modules if name.startswith('flax')} == loaded
    labels = ' ABCD'
    path = [0, 0, 2, 2, 0, 2, 3, 0, 1, 5, 5, 0]
    scores = np.log(np.full((14, 6), 0.001))
    scores[range(12), path] = np.log(0.995)
    answer = host.decode({'log_probabilities': scores, 'frames': np.int32(12)})
    assert answer['greedy'] == ''.join(labels[label - 1] for label in (2, 2, 3, 1, 5)) == 'AAB D'


def test_error_rates_have_baselines_and_count_new_transcripts_apart():
    from research.families.transcription import error_rates

    finalize = error_rates(['YES', 'YES', 'GO ON'], str.upper, 'form', 'beam 8')
    pairs = [('yes', 'YES', 'YE S'), ('go on', 'GO ON', 'GO'), ('stop now', 'STOP', '')]
    rows = [({'text': text}, {'text': answer, 'greedy': plain}) for text, answer, plain in pairs]
    metrics = finalize(iter(rows))
    assert metrics['wer'].value == pytest.approx(100 / 5) and metrics['wer'].baseline == 80
    assert metrics['wer_greedy'].value == metrics['wer_new_greedy'].value == 100 and metrics['wer_new'].value == 50
    assert metrics['cer'].value == pytest.approx(100 * 4 / 16)
    assert metrics['sentence_errors'].value == pytest.approx(100 / 3)
    assert 'form' in metrics['wer'].about and 'beam 8' in metrics['wer'].about
    assert 'YES' in metrics['wer'].baseline_about
    assert 'no language model' in metrics['wer_greedy'].about
    assert 'wer_new' not in finalize(iter(rows[:2]))


@pytest.mark.parametrize(
    ('setting', 'value'),
    [
        ('seconds', '0.0'), ('speeds', '(0.1,)'), ('speeds', '()'), ('beams', '0'), ('buckets', '0'), ('deltas', '3'),
        ('lm_order', '0'), ('time_share', '1.0'), ('lm_weight', '-1.0'), ('unfit', 'keep'), ('band_mask', '14'),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(setting, value, tmp_path):
    with pytest.raises(UserError, match=setting):
        api.prepare(config_of('configs/an4.py:tiny', {f'task.{setting}': value}), epath.Path(tmp_path))


def test_poisson_batches_are_refused_with_a_reason(tmp_path):
    config = config_of('configs/an4.py:tiny', {'train.sampling': 'poisson'})
    with pytest.raises(UserError, match='differ in shape'):
        planned(config, epath.Path(tmp_path))


BOOKS = """
import numpy as np
import tensorflow_datasets as tfds


class SomeBooks(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        features = {'text': tfds.features.Text(), 'speech': tfds.features.Tensor(shape=(None,), dtype=np.int64)}
        features['rate'] = tfds.features.Scalar(dtype=np.int32)  # tfds.features.Audio needs TensorFlow
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        names = 'train_clean100', 'train_clean360', 'train_other500', 'dev_clean', 'test_clean'
        return {name: self._generate_examples(number) for number, name in enumerate(names)}

    def _generate_examples(self, split):
        draw = np.random.default_rng(split)
        for row in range(18):
            samples = np.int64(draw.normal(size=16000 + 400 * row) * 3000)
            yield row, {'text': 'A BOOK ' * (1 + row % 2), 'speech': samples, 'rate': 16000}
"""


@pytest.mark.slow  # writes a set of TFDS
def test_the_librispeech_config_is_traced_on_a_set_of_its_form(tmp_path):
    from launch import prepare_data

    (tmp_path / 'some_books.py').write_text(BOOKS)
    prepare_data.prepare('some_books', str(tmp_path / 'data'), str(tmp_path / 'some_books.py'))
    values = api.load_config('configs/librispeech.py')
    values.data.update(name='some_books', folder=str(tmp_path / 'data'))
    spec = planned(api.read(values), epath.Path(tmp_path / 'run'))
    assert len(spec.task.source('train')) == 54 and len(spec.task.source('test')) == 18
    row = spec.task.source('validation')[3]
    assert row['rate'] == 16000 and spec.task.encode(row)['frames'] == 1 + len(row['audio']) // 160
    with jax.set_mesh(spec.mesh):
        state, logs = jax.eval_shape(spec.step(), spec.state, spec.batch)
    assert 'loss' in logs and len(spec.bucketed) == 6
    assert 7e6 < sum(leaf.size for leaf in jax.tree.leaves(state.variables.params)) < 9e6
