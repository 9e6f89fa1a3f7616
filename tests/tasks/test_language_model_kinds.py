"""Characters, crops, packed documents, prefix-LM, sliding windows, and Chinese text in the language model."""

import jax
import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from text_tasks import answers, built, chinese, config, context, log_probabilities, metrics_of, rows

from research.data.text.corpus import decode_text, encode_text, train_tokenizer
from research.errors import UserError
from research.tasks.language_model import make

TASK = {
    'name': 'language_model', 'tokenizer': 'character', 'vocabulary': 60, 'length': 16, 'max_new_tokens': 6,
    'temperature': 0.0, 'prompts': ('import os\n',),
}  # fmt: skip


def logits_function(task, variables):
    """Returns the logits as a function of a batch, compiled once a shape."""
    run = jax.jit(lambda v, b: task.losses['model'](v, b, context())[1].outputs['logits'])
    return lambda batch: np.asarray(run(variables, batch))


def variables_of(task):
    return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope='module')
def packed(tmp_path_factory):
    texts = tmp_path_factory.mktemp('texts') / 'lines.txt'
    texts.write_text('\n'.join(f'x{number} = {number * 37}' for number in range(120)))
    data = {'reader': 'lines', 'train': str(texts), 'validation_fraction': 0.2, 'test_fraction': 0.2}
    task = {**TASK, 'vocabulary': 15, 'documents': 'packed', 'length': 24}
    values = config(task, {'positions': 'learned'}, data)
    return built(values, tmp_path_factory.mktemp('packed'))


def test_packed_equals_unpacked(packed):
    variables, batch = variables_of(packed), rows(packed, 4)
    logits = logits_function(packed, variables)
    assert batch['segments'].max() >= 1 and (batch['segments'] == -1).any()
    whole = logits(batch)
    singles, places = [], []
    for row in range(4):
        for number in range(batch['segments'][row].max() + 1):
            inside = np.flatnonzero(batch['segments'][row] == number)
            single = {name: np.zeros((24,), np.int32) for name in ('tokens', 'targets')}
            for name in single:
                single[name][: len(inside)] = batch[name][row, inside]
            singles.append({**single, 'segments': np.where(np.arange(24) < len(inside), 0, -1).astype(np.int32)})
            places.append((row, inside))
    alone = {name: np.stack([single[name] for single in singles]) for name in singles[0]}
    counts = np.array([len(inside) for _, inside in places], np.int32)
    alone.update(length=counts, mask=np.ones(len(places), np.float32), index=np.arange(len(places)))
    more = -len(places) % 4  # as many rows as the batch has: one shape to compile
    alone = {name: np.concatenate([value, value[:more]]) for name, value in alone.items()}
    parts = [slice(start, start + 4) for start in range(0, len(places), 4)]
    found = np.concatenate([logits({name: value[part] for name, value in alone.items()}) for part in parts])
    for (row, inside), single in zip(places, found, strict=False):
        np.testing.assert_allclose(whole[row, inside], single[: len(inside)], atol=2e-5)


def test_packed_rows_are_shown_and_continued_document_by_document(packed):
    batch = rows(packed, 2)
    described = packed.describe({name: value[0] for name, value in batch.items()})
    assert '| next document |' in described['text'] and described['text'].startswith('<|endoftext|>x')
    outputs = jax.jit(lambda v, b: packed.predict(v, b, context()))(variables_of(packed), batch)
    first = (batch['segments'] == 0).sum(-1)
    np.testing.assert_array_equal(outputs['prompt_length'], first // 2)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('prefix')


@pytest.fixture(scope='module')
def prefix(folder):
    return built(config({**TASK, 'objective': 'prefix', 'stride': 1}, {'window': 5}), folder)


@pytest.fixture(scope='module')
def window(tmp_path_factory):
    return built(config(TASK, {'window': 3, 'layers': 1}), tmp_path_factory.mktemp('window'))


def test_prefix_is_seen_whole_and_not_predicted(prefix):
    variables, batch = variables_of(prefix), rows(prefix, 2)
    logits = logits_function(prefix, variables)
    assert batch['prefix'].tolist() == [8, 8]
    before = logits(batch)
    changed = {**batch, 'tokens': batch['tokens'].copy()}
    changed['tokens'][:, 7] = (changed['tokens'][:, 7] + 1) % 60  # the last of the prefix
    assert np.abs(logits(changed)[:, 0] - before[:, 0]).max() > 1e-4
    changed = {**batch, 'tokens': batch['tokens'].copy()}
    changed['tokens'][:, 8] = (changed['tokens'][:, 8] + 1) % 60  # the first after it
    np.testing.assert_allclose(logits(changed)[:, :8], before[:, :8], atol=1e-6)
    picked = np.take_along_axis(log_probabilities(before), batch['targets'][..., None], -1)[..., 0]
    value = metrics_of(prefix, variables, batch)['loss'].value
    assert value == pytest.approx(-picked[:, 7:].mean(), rel=1e-5)


def test_prefixes_are_drawn_anew_in_every_epoch(prefix):
    raw = prefix.source('train')[3]
    drawn = {int(prefix.encode(raw, np.random.default_rng([0, epoch, 3]))['prefix']) for epoch in range(200)}
    assert drawn == set(range(1, 16))
    request = prefix.encode({'text': 'import'})
    assert request['prefix'] == request['length'] == 6
    assert prefix.describe(prefix.encode(raw))['target'] == prefix.describe(
        {'tokens': raw['tokens'][8:], 'length': 9}
    )['text']  # fmt: skip


@pytest.mark.parametrize('kind', ['prefix', 'window'])
def test_generation_with_a_cache_equals_reading_all_again(kind, prefix, window):
    task = prefix if kind == 'prefix' else window
    variables, text = variables_of(task), 'import os'
    logits = logits_function(task, variables)
    (answer,) = answers(task, variables, [{'text': text}])
    tokens = task.encode({'text': text})['tokens'][: len(text)].tolist()
    for _ in range(6):
        padded = np.zeros((1, 16), np.int32)
        padded[0, : len(tokens)] = tokens
        batch = {'tokens': padded, 'targets': padded, 'length': np.array([16]), 'mask': np.ones(1, np.float32)}
        if kind == 'prefix':
            batch['prefix'] = np.array([len(text)])
        tokens.append(int(np.argmax(logits(batch)[0, len(tokens) - 1])))
    new = {'tokens': np.array(tokens[len(text) :]), 'length': 6, 'prompt': np.zeros(0, int), 'prompt_length': 0}
    assert answer == {'prompt': text, 'text': task.decode(new)['text']}


def test_a_window_hides_what_is_far(window):
    variables, batch = variables_of(window), rows(window, 1)
    logits = logits_function(window, variables)
    before = logits(batch)
    changed = {**batch, 'tokens': batch['tokens'].copy()}
    changed['tokens'][:, 5] = (changed['tokens'][:, 5] + 1) % 60
    moved = np.abs(logits(changed) - before).max((0, 2)) > 1e-6
    assert np.flatnonzero(moved).tolist() == [5, 6, 7]


def test_training_rows_are_crops_and_others_blocks(prefix):
    train, validation = prefix.source('train'), prefix.source('validation')
    stream = train.stream
    assert len(train) == len(stream) - 16
    np.testing.assert_array_equal(train[5]['tokens'], stream[5:22])
    np.testing.assert_array_equal(validation[1]['tokens'][:1], validation[0]['tokens'][-1:])


@pytest.mark.parametrize('kind', ['bpe', 'character'])
def test_chinese_text(kind, tmp_path):
    task = {**TASK, 'tokenizer': kind, 'vocabulary': 300, 'prompts': ()}
    task = built(chinese(task), tmp_path)
    shown = [task.describe(task.encode(task.source('train')[row]))['text'] for row in range(4)]
    assert '。' in ''.join(shown) and '天' in ''.join(shown)
    text = '雨天' if kind == 'bpe' else '今天天气'
    row = task.encode({'text': text})
    assert row['length'] <= 6 and task.describe(row) == {'text': text}
    if kind == 'character':
        (answer,) = answers(task, variables_of(task), [{'text': text}])
        assert answer['prompt'] == text and isinstance(answer['text'], str)
    with pytest.raises(UserError, match='at most 10|33 characters|11 tokens'):
        task.encode({'text': '今天天气今天天气今天天'})


@given(st.integers(0, 59))
@settings(max_examples=20, deadline=None)
def test_halves_of_characters_become_marks(cut):
    tokenizer = train_tokenizer(['a'], 257)
    text = '雨停了以后，天边出现了一道彩虹。' * 2
    tokens = encode_text(tokenizer, text)[: cut + 1]
    decoded = decode_text(tokenizer, tokens)
    whole = decoded.rstrip('\ufffd')
    assert text.startswith(whole) and len(whole) == (cut + 1) // 3
    decoded.encode()


@pytest.mark.parametrize(
    'change, message',
    [
        ({'stride': 17}, 'stride must be at most length=16'),
        ({'documents': 'packed', 'stride': 1}, 'requires stride=0'),
        ({'documents': 'packed', 'objective': 'prefix'}, 'causal'),
        ({'documents': 'apart'}, 'documents'),
        ({'tokenizer': 'words'}, 'tokenizer'),
        ({'vocabulary': 50}, 'ids up to 59, beyond the embedding of 50'),
    ],
)
def test_impossible_settings_are_refused(change, message, prefix, folder):
    with pytest.raises(UserError, match=message):
        make(config({**TASK, **change}), epath.Path(folder) / 'prepared')
