"""Text tasks that go on from published weights: rows as the family expects, the reference's logits, refusals."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from text_tasks import answers, built, config, context, log_probabilities, rows
from tokenizers import Tokenizer, models, pre_tokenizers

from research.core.config import OptimizerSettings
from research.core.optimizer import make_optimizer
from research.core.startup import load_weights
from research.core.task import Variables
from research.data.batches import requests
from research.errors import UserError
from research.interop import weights
from research.methods import lora
from research.nn.encoder_decoder import EncoderDecoder
from research.nn.transformer_settings import TransformerSettings
from research.ops.paths import flatten_paths
from research.tasks import masked_model

FIXTURES = pathlib.Path(__file__).parent.parent / 'interop' / 'fixtures'
MASKED = {'name': 'masked_model', 'vocabulary': 300, 'length': 16, 'rate': 0.2, 'top': 2}
SPANS = {'name': 'span_corruption', 'vocabulary': 300, 'length': 16, 'density': 0.25, 'mean_span': 2.0}
PAIRS = {
    'name': 'translation', 'vocabulary': 300, 'length': 24, 'row_length': 40, 'beams': 2, 'prefix': 'rain to cold: ',
    'label_smoothing': 0.0, 'bleu_tokenizer': '13a',
}  # fmt: skip
WORDS = 'the quick brown fox jumped over unaffordable , . 我 爱 北 京'.split()
ENGLISH = 'the rain cold day a ed ing of but day.'.split()


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Texts in the words of the fixtures' tokenizers, one of them with a mark written out."""
    folder, rng = tmp_path_factory.mktemp('texts'), np.random.default_rng(0)
    lines = ['text\tother\tsource\ttarget', '[SEP] the </s> fox\tthe <extra_id_0> rain\tthe </s>\ta day']
    lines += [f'{word} fox\t{word} cold\t{word}\ta {word}' for word in ENGLISH[:5]]  # short pairs, for Marian
    for _ in range(80):
        parts = [' '.join(rng.choice(words, 6)) for words in (WORDS, ENGLISH, ENGLISH[:5], ENGLISH[5:])]
        lines.append('\t'.join(parts))
    (folder / 'texts.tsv').write_text('\n'.join(lines) + '\n', encoding='utf-8')
    return folder / 'texts.tsv'


def started(folder, table, task, name, **changes):
    """Returns the task of a folder of weights: one of the fixtures, or a path."""
    fields = {'span_corruption': 'text:first,other:text'}.get(task['name'], '')
    data = {'reader': 'tsv', 'train': str(table), 'fields': fields, 'validation_fraction': 0.2, 'test_fraction': 0.1}
    model = {'weights': str(name if isinstance(name, pathlib.Path) else FIXTURES / name), 'revision': ''}
    return built(config({**task, **changes}, model, data), folder)


def variables_of(task):
    """Returns the weights alone; they are all that the task has, but for a pooler."""
    params = {'model': {key: tree for key, tree in task.load().params['model'].items() if key != 'pooler'}}
    wanted = jax.eval_shape(task.init, jax.random.key(0)).params
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, wanted)
    return Variables(params, {})


def with_tokenizer(folder, name, tokenizer):
    """Returns a copy of a fixture with another tokenizer."""
    shutil.copytree(FIXTURES / name, folder / name)
    (folder / name / 'vocab.txt').unlink(missing_ok=True)
    tokenizer.save(str(folder / name / 'tokenizer.json'))
    return folder / name


def words_tokenizer(special):
    """Returns a tokenizer of whole words with special tokens first."""
    tokenizer = Tokenizer(models.WordLevel({each: n for n, each in enumerate([*special, *WORDS])}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(special))
    return tokenizer


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """The fixtures of three encoders, each with a tokenizer."""
    folder = tmp_path_factory.mktemp('encoders')
    shutil.copytree(FIXTURES / 'distilbert', folder / 'distilbert')
    shutil.copy(FIXTURES / 'bert' / 'vocab.txt', folder / 'distilbert')
    roberta = with_tokenizer(folder, 'roberta', words_tokenizer(('<s>', '<pad>', '</s>', '<unk>', '<mask>')))
    return {'bert': FIXTURES / 'bert', 'distilbert': folder / 'distilbert', 'roberta': roberta}


@pytest.fixture(scope='module')
def bert(tmp_path_factory, table):
    return started(tmp_path_factory.mktemp('bert'), table, MASKED, 'bert')


@pytest.fixture(scope='module')
def t5(tmp_path_factory, table):
    return started(tmp_path_factory.mktemp('t5'), table, SPANS, 't5')


@pytest.fixture(scope='module')
def translator(tmp_path_factory, table):
    return started(tmp_path_factory.mktemp('translator'), table, PAIRS, 't5')


@pytest.mark.parametrize('family', ['bert', 'distilbert', 'roberta'])
def test_logits_of_the_head_are_the_reference_s(family, folders, table, tmp_path):
    task = started(tmp_path, table, MASKED, folders[family])
    variables, stored = variables_of(task), dict(np.load(FIXTURES / family / 'reference.npz'))
    count = len(stored['tokens'])
    if 'types' in stored:  # the reference's first row has types; the task has none: move them to the positions
        params, count = dict(variables.params['model']), 1
        kinds, places = (np.array(params[name]['embedding']) for name in ('types', 'positions'))
        places[: stored['types'].shape[1]] += kinds[stored['types'][0]] - kinds[0]
        variables = Variables({'model': {**params, 'positions': {'embedding': places}}}, {})
    tokens, length = stored['tokens'][:count], stored['length'][:count]
    places = np.tile(np.arange(tokens.shape[1], dtype=np.int32), (count, 1))
    batch = {
        'tokens': tokens, 'length': length, 'positions': places,
        'count': length, 'targets': tokens, 'mask': np.ones(count, np.float32),
    }  # fmt: skip
    total, aux = jax.jit(lambda v: task.losses['model'](v, batch, context()))(variables)
    inside = np.arange(tokens.shape[1]) < length[:, None]
    expected = stored['logits'][:count]
    np.testing.assert_allclose(np.asarray(aux.outputs['logits'])[inside], expected[inside], atol=1e-4)
    picked = np.take_along_axis(log_probabilities(expected), tokens[..., None], -1)[..., 0]
    assert float(total) == pytest.approx(-picked[inside].sum(), rel=1e-5)


def test_rows_are_framed_and_marks_are_never_asked_for(bert):
    names = (FIXTURES / 'bert' / 'vocab.txt').read_text(encoding='utf-8').splitlines()
    raws = bert.source('train')
    assert all(len(raw['tokens']) == 14 for raw in raws)
    between = 0
    for number in range(len(raws)):
        row = bert.encode(raws[number], np.random.default_rng(number))
        shown = [names[each] for each in row['tokens']]
        assert (shown[0], shown[-1], row['length']) == ('[CLS]', '[SEP]', 16)
        hidden = [names[each] for each in row['targets'][: row['count']]]
        assert len(hidden) == 3 and not any(name[0] == '[' and name != '[unused0]' for name in hidden)
        between += '[SEP]' in [names[each] for each in raws[number]['tokens']]
    assert between > len(raws) / 2  # documents end with it
    assert bert.describe(row)['masked text'].startswith('[CLS] ')


def test_whole_words_are_hidden_with_their_pieces(table, tmp_path):
    task = started(tmp_path, table, MASKED, 'bert', whole_words=True, mask_share=1.0, random_share=0.0, rate=0.3)
    names = (FIXTURES / 'bert' / 'vocab.txt').read_text(encoding='utf-8').splitlines()
    pieces = 0
    for number, raw in enumerate(task.source('train')):
        row = task.encode(raw, np.random.default_rng(number))
        real = [names[each] for each in task.encode.__self__.framed(raw['tokens'])]
        hidden = [names[each] == '[MASK]' for each in row['tokens']]
        for place in range(2, 16):
            if real[place].startswith('##') and real[place - 1] not in ('[CLS]', '[SEP]', '[UNK]'):
                assert hidden[place] == hidden[place - 1]
                pieces += hidden[place]
    assert pieces > 5


def test_requests_take_either_name_of_the_mask(bert, folders, table, tmp_path):
    roberta = started(tmp_path, table, MASKED, folders['roberta'])
    row, same = (roberta.encode({'text': f'the {mask} fox'}) for mask in ('[MASK]', '<mask>'))
    tokens = Tokenizer.from_file(str(folders['roberta'] / 'tokenizer.json')).get_vocab()
    wanted = [tokens[each] for each in ('<s>', 'the', '<mask>', 'fox', '</s>')]
    assert row['tokens'][: row['length']].tolist() == same['tokens'][: row['length']].tolist() == wanted
    (answer,) = answers(bert, variables_of(bert), [{'text': 'the quick [MASK] jumped over'}])
    assert answer['masked'] == 'the quick [MASK] jumped over' and len(answer['candidates'][0]) == 2
    assert answer['text'].startswith('the quick ') and answer['text'].endswith(' jumped over')
    with pytest.raises(UserError, match='15 tokens; the model reads 14'):
        bert.encode({'text': 'the ' * 14 + '[MASK]'})


def test_a_head_that_is_not_there_is_made_and_reported(table, tmp_path):
    shutil.copytree(FIXTURES / 'bert', tmp_path / 'bare')
    file = tmp_path / 'bare' / 'model.safetensors'
    save_file({key: each for key, each in load_file(file).items() if not key.startswith('cls.')}, file)
    task = started(tmp_path, table, MASKED, tmp_path / 'bare')
    loaded, start = task.load(), jax.jit(task.init)(jax.random.key(0))
    variables, report = load_weights(loaded, start)
    assert '5 are not in the source and keep their values' in str(report) and 'model/head/bias' in str(report)
    assert '2 of the source are not used' in str(report) and 'pooler' in str(report)
    for part in ('tokens', 'blocks'):
        jax.tree.map(np.testing.assert_array_equal, variables.params['model'][part], loaded.params['model'][part])


def test_spans_have_the_loss_of_the_reference_s_logits(t5):
    """Sentinels from the end of the vocabulary, the pad as start: a row's loss is that of the module on its arrays."""
    batch, found = rows(t5, 2), weights.read(FIXTURES / 't5')
    assert batch['tokens'][:, 0].tolist() == [0, 0] and batch['targets'][:, 0].tolist() == [39, 39]
    assert batch['source'][:, -1].tolist() == batch['targets'][:, -1].tolist() == [1, 1]
    total, aux = jax.jit(lambda v: t5.losses['model'](v, batch, context()))(variables_of(t5))
    assert float(total) == pytest.approx(reference_loss(found, batch), rel=1e-5) and aux.weight == batch['targets'].size
    shown = t5.describe({name: value[0] for name, value in batch.items()})
    assert '<extra_id_0>' in shown['source'] and '<extra_id_' not in shown['text']
    seen = np.concatenate([raw['tokens'] for raw in t5.source('train')])
    assert seen.max() < 33 and (seen == 1).sum() > 40  # a sentinel written in a text is none; documents end


def reference_loss(found, batch):
    """Returns nats of the targets of single pairs by the module itself, with the shape of the folder."""
    model = EncoderDecoder(TransformerSettings(**found.settings))
    given = (batch[name] for name in ('source', 'source_length', 'tokens'))
    logits = jax.jit(lambda params, *given: model.apply({'params': params}, *given))(found.params, *given)
    picked = np.take_along_axis(log_probabilities(logits), batch['targets'][..., None], -1)[..., 0]
    return -(picked * (np.arange(picked.shape[1]) < batch['length'][:, None])).sum()


def test_generation_starts_and_ends_as_the_family_does(t5):
    batch, variables = rows(t5, 2), variables_of(t5)
    run = jax.jit(lambda b: t5.losses['model'](variables, b, context())[1].outputs['logits'])
    most = t5.encode.__self__.sizes.target_length
    written = np.zeros((2, most), np.int32)
    for place in range(most):
        logits = np.array(run({**batch, 'tokens': np.insert(written, 0, 0, 1)[:, :most]}))
        written[:, place] = logits[:, place, 1:].argmax(-1) + 1  # never the start
    outputs = jax.jit(lambda b: t5.predict(variables, b, context()))(batch)
    for row in range(2):
        length = int(outputs['length'][row])
        assert outputs['tokens'][row, :length].tolist() == written[row, :length].tolist()
        assert length == most or (written[row, length - 1],) == t5.generate.end == (1,)
    (answer,) = answers(t5, variables, [{'text': 'the rain <extra_id_0> cold day'}])
    assert answer['source'] == 'the rain<extra_id_0> cold day' and set(answer['spans']) == {'<extra_id_0>'}


def test_packed_pairs_have_the_loss_of_the_reference_s_logits(translator):
    row = max(translator.source('train'), key=lambda row: len(row['sources']))
    assert len(row['sources']) > 1
    variables, found = variables_of(translator), weights.read(FIXTURES / 't5')
    packed = requests(translator.encode, [row], 1)
    total, aux = jax.jit(lambda v: translator.losses['model'](v, packed, context()))(variables)
    pairs = [{'source': a, 'target': b} for a, b in zip(*decoded(translator, row), strict=True)]
    batch = requests(translator.encode, pairs, len(pairs))
    assert batch['tokens'][:, 0].tolist() == [0] * len(pairs) and aux.weight == batch['length'].sum()
    assert float(total) == pytest.approx(reference_loss(found, batch), rel=1e-5)


def decoded(task, row):
    """Returns the texts of a packed row."""
    parts = zip(row['sources'], row['targets'], strict=True)
    texts = [
        task.decode({'source': one, 'source_length': len(one), 'tokens': other, 'length': len(other)})
        for one, other in parts
    ]
    return [each['source'] for each in texts], [each['text'] for each in texts]


def test_a_prefix_says_what_is_to_be_done(translator):
    tokenizer = Tokenizer.from_file(str(FIXTURES / 't5' / 'tokenizer.json'))
    row = translator.encode({'source': 'the day'})
    wanted = [*tokenizer.encode('rain to cold: the day').ids, 1]
    assert row['source'][: row['source_length']].tolist() == wanted and row['tokens'].tolist() == [0]
    (answer,) = answers(translator, variables_of(translator), [{'source': 'the day'}])
    assert answer['source'] == 'the day' and translator.generate.end == (1,)


def test_marian_has_a_tokenizer_for_each_side(table, tmp_path):
    """Its start is the pad, its end is 0; the source's model cuts 'kalt' as the target's does not."""
    task = started(tmp_path, table, {**PAIRS, 'prefix': '', 'length': 16}, 'marian')
    row = task.encode({'source': 'kalt', 'target': 'kalt'})
    sides = (row['source'][: row['source_length']].tolist(), row['targets'][: row['length']].tolist())
    cases = {'source': [2, 20, 4, 11, 9, 0], 'target': [2, 20, 18, 0]}
    assert dict(zip(cases, sides, strict=True)) == cases and row['tokens'][0] == 39 and task.generate.end == (0,)
    batch = requests(task.encode, [{'source': 'the rain', 'target': 'der regen'}], 1)
    total, _ = jax.jit(lambda v: task.losses['model'](v, batch, context()))(variables_of(task))
    assert float(total) == pytest.approx(reference_loss(weights.read(FIXTURES / 'marian'), batch), rel=1e-5)
    with pytest.raises(UserError, match='asks for 17 positions, .* has 16: lower it'):
        started(tmp_path, table, {**PAIRS, 'length': 17}, 'marian')


@pytest.mark.parametrize('name', ['bert', 't5', 'translator'])
def test_adapters_frozen_layers_and_layer_rates_work_on_them(name, request):
    task = request.getfixturevalue(name)
    adapted, params = lora.apply(task, lora.Settings(rank=2)), variables_of(task).params['model']
    shapes, loaded = jax.eval_shape(adapted.init, jax.random.key(0)).params, adapted.load().params['model_base']
    kernels = [path for path in flatten_paths(params) if path.endswith('query/kernel')]
    assert kernels and {f'{path}/a' for path in kernels} <= set(flatten_paths(shapes['model']))
    for path, leaf in flatten_paths(shapes['model_base']).items():
        assert flatten_paths(loaded)[path].shape == leaf.shape
    settings = OptimizerSettings('sgd', 1.0, 'constant', clip=0.0, momentum=0.0, layer_decay=0.5, frozen=('tokens/*',))
    optimizer = make_optimizer(settings, 4, params)
    ones = jax.tree.map(jnp.ones_like, params)
    updates = flatten_paths(optimizer.update(ones, optimizer.init(params), params)[0])
    assert not updates['tokens/embedding'].any()
    for path in kernels:
        np.testing.assert_allclose(updates[path][:, 0, 0], [-0.25, -0.5])


@pytest.mark.parametrize(
    'task, name, changes, message',
    [
        (MASKED, 'gpt2', {}, r'is a decoder \(gpt2\); this task needs an encoder: BERT'),
        (MASKED, 't5', {}, r'is an encoder-decoder \(t5\); this task needs an encoder'),
        (MASKED, 'vit', {}, r'is an image model \(vit\); this task needs an encoder'),
        (SPANS, 'bert', {}, r'is an encoder \(bert\); this task needs an encoder-decoder: T5'),
        (PAIRS, 'bert', {}, r'is an encoder \(bert\); this task needs an encoder-decoder'),
        (MASKED, 'bert', {'length': 17}, 'length asks for 17 positions, and config.model.weights=.* has 16: lower it'),
        (MASKED, 'bert', {'length': 2}, 'config.task.length=2: 2 tokens of a row are its begin and end'),
        (SPANS, 't5', {'length': 900, 'mean_span': 90.0}, 'asks for 6.. positions, .* has 512: lower it'),
        (PAIRS, 't5', {'length': 513, 'row_length': 600}, 'asks for 513 positions, .* has 512: lower it'),
        (SPANS, 't5', {'density': 0.5, 'mean_span': 1.0}, 'has no <extra_id_7>: lower config.task.length or density'),
    ],
)
def test_what_does_not_go_together_is_refused(task, name, changes, message, table, tmp_path):
    with pytest.raises(UserError, match=message):
        started(tmp_path, table, task, name, **changes)


def test_tokenizers_without_masks_or_sentinels_are_refused(table, tmp_path):
    plain = words_tokenizer(('[PAD]', '[UNK]', '[CLS]', '[SEP]', '<unk>'))
    with pytest.raises(UserError, match=r'its tokenizer has no \[MASK\] or <mask>, so no token can be masked'):
        started(tmp_path, table, MASKED, with_tokenizer(tmp_path, 'bert', plain))
    plain = words_tokenizer(('<pad>', '</s>', '<unk>'))
    with pytest.raises(UserError, match='its tokenizer has no <extra_id_0>: it was not made for spans; use T5'):
        started(tmp_path, table, SPANS, with_tokenizer(tmp_path, 't5', plain))
    file = tmp_path / 't5' / 'config.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'eos_token_id': None}))
    with pytest.raises(UserError, match=r'names no token that ends a text \(eos_token_id\)'):
        started(tmp_path, table, PAIRS, tmp_path / 't5')


def test_a_folder_that_was_prepared_without_weights_says_so(table, tmp_path):
    data = {'reader': 'tsv', 'train': str(table), 'validation_fraction': 0.2, 'test_fraction': 0.1}
    built(config({**MASKED, 'vocabulary': 265}, {'causal': False}, data), tmp_path)
    values = config(MASKED, {'weights': str(FIXTURES / 'bert')}, data)
    with pytest.raises(UserError, match='prepared without config.model.weights=.*: start in another --workdir'):
        masked_model.make(values, tmp_path / 'prepared')
