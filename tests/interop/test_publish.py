"""Runs written as Hugging Face folders: read back and used as weights without a step, they answer as before."""

import json
import pathlib
import re
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, pre_tokenizers

from research import api
from research.core.config import to_json
from research.core.pytree import transfer
from research.core.task import Context
from research.data.text.corpus import END
from research.errors import UserError
from research.interop import publish, weights
from research.interop.files import SINGLE
from research.nn.transformer_settings import TransformerSettings
from research.resolve import task_module

FOLDER = pathlib.Path(__file__).parent / 'fixtures'
GPT2 = {
    'width': 16, 'layers': 2, 'heads': 2, 'positions': 'learned', 'query_key_value_bias': True, 'output_bias': True,
    'feed_forward_bias': True, 'initial_scale': 0.2,
}  # fmt: skip
LLAMA = {
    'width': 16, 'layers': 2, 'heads': 4, 'key_value_heads': 2, 'norm': 'rms', 'activation': 'silu', 'gated': True,
    'tie_embedding': False, 'initial_scale': 0.2,
}  # fmt: skip
T5 = {
    'width': 16, 'layers': 2, 'heads': 2, 'norm': 'rms', 'positions': 'relative', 'attention_scale': False,
    'activation': 'relu', 'head_scale': True, 'initial_scale': 0.2,
}  # fmt: skip
MARIAN = {
    'width': 16, 'layers': 2, 'decoder_layers': 1, 'heads': 2, 'norm_position': 'post', 'positions': 'halves',
    'activation': 'relu', 'query_key_value_bias': True, 'output_bias': True, 'feed_forward_bias': True,
    'head_bias': True, 'initial_scale': 0.2,
}  # fmt: skip
TEXT = {'name': 'language_model', 'vocabulary': 280, 'length': 16, 'max_new_tokens': 4, 'temperature': 0.0}
SPANS = {'name': 'span_corruption', 'vocabulary': 280, 'length': 16, 'density': 0.25, 'mean_span': 2.0}
PAIRS = {
    'name': 'translation', 'vocabulary': 280, 'length': 24, 'row_length': 40, 'beams': 2, 'label_smoothing': 0.0,
}  # fmt: skip


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    """Texts, pairs and two classes."""
    rng, words = np.random.default_rng(0), 'the quick brown fox jumped over rain cold day'.split()
    lines = ['text\tsource\ttarget\tlabel']
    for number in range(60):
        first, second = (' '.join(rng.choice(words, 6)) for _ in range(2))
        lines.append(f'{first}\t{first}\t{second}\t{("bad", "good")[number % 2]}')
    file = tmp_path_factory.mktemp('texts') / 'texts.tsv'
    file.write_text('\n'.join(lines) + '\n')
    return file


def built(folder, task, model, table):
    """The task of a config in a folder, with the config."""
    fields = '' if task['name'] == 'translation' else ('text:text' if task['name'] != 'text_classification' else '')
    data = {'reader': 'tsv', 'train': str(table), 'fields': fields, 'validation_fraction': 0.2, 'test_fraction': 0.1}
    config, module = types.SimpleNamespace(task=task, model=model, data=data), task_module(task['name'])
    module.prepare(config, epath.Path(folder))
    return config, module.make(config, epath.Path(folder))


def random_variables(task):
    """Variables of a task drawn at random, without compiling its `init`."""
    rng = np.random.default_rng(3)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(leaf.dtype), shapes_of(task))


def shapes_of(task):
    return jax.eval_shape(task.init, jax.random.key(0))


def loaded_by(task):
    """The variables that a task loads, which must be all that it has."""
    variables, report = transfer(shapes_of(task), task.load())
    assert not report.missing and not report.misshapen and not report.unused
    return variables


def written(tmp_path, task, model, table, name='folder'):
    """Writes a model with random weights; returns its config, task and variables."""
    config, made = built(tmp_path / 'first', task, model, table)
    variables = random_variables(made)
    described = task_module(task['name']).publish(config, epath.Path(tmp_path / 'first'), variables.params['model'])
    publish.write_folder(described, tmp_path / name)
    return config, made, variables


def prediction(task, raw):
    """`predict` of a request as a function of the variables."""
    batch = {name: np.asarray(value)[None] for name, value in task.encode(raw).items()}
    batch |= {'index': np.zeros(1, np.int32), 'mask': np.ones(1, np.float32)}
    context = Context(jax.random.key(0), jnp.int32(0), False)
    return lambda variables: task.predict(variables, batch, context)


def program(task, variables, raw):
    """The traced program of a prediction, which is far cheaper to compare than compiled results."""
    return re.sub('0x[0-9a-f]+', '', str(jax.make_jaxpr(prediction(task, raw))(variables)))


def compare(tmp_path, task, model, table, raw):
    """Writes, starts the same task from the folder, and compares weights and program of the answer to a request."""
    _, first, variables = written(tmp_path, task, model, table)
    _, second = built(tmp_path / 'second', task, {**model, 'weights': str(tmp_path / 'folder')}, table)
    loaded = loaded_by(second)
    jax.tree.map(np.testing.assert_array_equal, dict(loaded.params), dict(variables.params))
    assert program(first, variables, raw) == program(second, loaded, raw)
    return json.loads((tmp_path / 'folder' / 'config.json').read_text())


@pytest.mark.parametrize(('model', 'family', 'architecture'), [
    (GPT2, 'gpt2', 'GPT2LMHeadModel'), (LLAMA, 'llama', 'LlamaForCausalLM'),
    ({**LLAMA, 'window': 8}, 'mistral', 'MistralForCausalLM'),
    ({**LLAMA, 'qk_norm': True}, 'qwen3', 'Qwen3ForCausalLM'),
])  # fmt: skip
def test_language_models_from_scratch(model, family, architecture, table, tmp_path):
    config = compare(tmp_path, TEXT, model, table, {'text': 'the quick'})
    assert (config['model_type'], config['architectures'], config['eos_token_id']) == (family, [architecture], 0)
    tokenizer = Tokenizer.from_file(str(tmp_path / 'folder' / 'tokenizer.json'))
    assert tokenizer.token_to_id(END) == 0
    told = json.loads((tmp_path / 'folder' / 'tokenizer_config.json').read_text())
    assert (told['eos_token'], told['model_max_length']) == (END, 16)
    assert told['model_input_names'] == ['input_ids', 'attention_mask']


@pytest.mark.parametrize(('task', 'model', 'family'), [
    (SPANS, T5, 't5'), (PAIRS, T5, 't5'), (PAIRS, MARIAN, 'marian'),
])  # fmt: skip
def test_encoder_decoders_from_scratch(task, model, family, table, tmp_path):
    raw = {'source': 'the rain'} if task is PAIRS else {'text': 'the <extra_id_0> fox'}
    config = compare(tmp_path, task, model, table, raw)
    assert config['model_type'] == family
    assert (config['eos_token_id'], config['decoder_start_token_id']) == (0, 0)  # the end also starts a target


def test_a_language_model_from_weights_gets_its_end_token_s_name_back(table, tmp_path):
    folder = shutil.copytree(FOLDER / 'gpt2', tmp_path / 'gpt2')
    vocabulary = json.loads((folder / 'vocab.json').read_text())
    stop = {token: number for token, number in vocabulary.items() if token != END}
    tokenizer = weights.read(folder).tokenizer
    described = json.loads(tokenizer.to_str().replace(END, '<|end_of_text|>'))
    (folder / 'tokenizer.json').write_text(json.dumps(described))
    for name in ('vocab.json', 'merges.txt'):
        (folder / name).unlink()
    other = next(iter(stop.values()))
    config = json.loads((folder / 'config.json').read_text())
    ends = [vocabulary[END], other]
    (folder / 'config.json').write_text(json.dumps({**config, 'eos_token_id': ends, 'kept': 'as it was'}))
    stored = compare(tmp_path, TEXT, {'weights': str(folder)}, table, {'text': 'the quick'})
    assert stored['eos_token_id'] == ends and stored['kept'] == 'as it was' and stored['torch_dtype'] == 'float32'
    again = Tokenizer.from_file(str(tmp_path / 'folder' / 'tokenizer.json'))
    assert again.id_to_token(ends[0]) == '<|end_of_text|>' and again.token_to_id(END) is None


@pytest.fixture(scope='module')
def encoders(tmp_path_factory):
    """The fixtures of three encoders with tokenizers."""
    folder = tmp_path_factory.mktemp('encoders')
    for name in ('bert', 'roberta', 'distilbert'):
        shutil.copytree(FOLDER / name, folder / name)
    shutil.copy(FOLDER / 'bert' / 'vocab.txt', folder / 'distilbert')
    names = ['<s>', '<pad>', '</s>', '<unk>', '<mask>', *'the quick brown fox jumped over rain cold day'.split()]
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, '<unk>'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(names[:5])
    tokenizer.save(str(folder / 'roberta' / 'tokenizer.json'))
    return folder


@pytest.mark.parametrize('family', ['bert', 'roberta', 'distilbert'])
def test_masked_models(family, encoders, table, tmp_path):
    task = {'name': 'masked_model', 'vocabulary': 280, 'length': 16, 'top': 2}
    config = compare(tmp_path, task, {'weights': str(encoders / family)}, table, {'text': 'the [MASK] fox'})
    assert config['architectures'][0].endswith('ForMaskedLM')
    told = json.loads((tmp_path / 'folder' / 'tokenizer_config.json').read_text())
    assert told['mask_token'] in ('[MASK]', '<mask>') and ('model_input_names' in told) is (family == 'distilbert')


@pytest.mark.parametrize('family', ['bert', 'roberta', 'distilbert'])
def test_text_classifiers_are_read_back_with_their_head(family, encoders, table, tmp_path):
    task = {'name': 'text_classification', 'length': 16}
    model = {'name': 'transformer', 'weights': str(encoders / family), 'pool': 'pooler'}
    config = compare(tmp_path, task, model, table, {'text': 'the quick fox'})
    assert config['id2label'] == {'0': 'bad', '1': 'good'} and config['label2id'] == {'bad': 0, 'good': 1}
    names = {'bert': 'classifier', 'roberta': 'classifier.out_proj', 'distilbert': 'classifier'}
    tensors = load_file(tmp_path / 'folder' / SINGLE)
    assert tensors[f'{names[family]}.weight'].shape == (2, 16)
    assert {'bert': 'bert.pooler.dense.weight', 'roberta': 'classifier.dense.weight'}.get(
        family, 'pre_classifier.weight'
    ) in tensors


def test_one_unit_becomes_two_logits(encoders, table, tmp_path):
    task = {'name': 'text_classification', 'length': 16, 'one_unit': True}
    model = {'name': 'transformer', 'weights': str(encoders / 'bert'), 'pool': 'pooler'}
    _, first, variables = written(tmp_path, task, model, table)
    two = {**model, 'weights': str(tmp_path / 'folder'), 'pool': 'auto'}
    _, second = built(tmp_path / 'second', {**task, 'one_unit': False}, two, table)
    answers = [
        task.decode({name: value[0] for name, value in jax.jit(prediction(task, {'text': 'the fox'}))(values).items()})
        for task, values in ((first, variables), (second, loaded_by(second)))
    ]
    assert answers[0]['label'] == answers[1]['label']
    assert answers[0]['probability'] == pytest.approx(answers[1]['probability'], rel=1e-5)


@pytest.mark.parametrize(('task', 'model', 'message'), [
    (TEXT, {**GPT2, 'positions': 'rotary'}, r"gpt2 is the nearest; .*positions='learned' \(here 'rotary'\)"),
    ({**TEXT, 'objective': 'prefix'}, GPT2, 'decoders of the hub are causal'),
    (PAIRS, {**MARIAN, 'norm_position': 'pre', 'positions': 'learned'}, 'no supported family .t5, marian. has'),
    ({'name': 'text_classification', 'length': 16}, {'name': 'lstm'}, 'only text classifiers that start from pre'),
    ({'name': 'text_classification', 'length': 16}, {'name': 'transformer', 'pool': 'mean', 'weights': 'bert'},
     "config.model.pool='mean': classifiers of the hub have a pooler"),
])  # fmt: skip
def test_what_no_family_has_is_refused(task, model, message, encoders, table, tmp_path):
    if model.get('weights'):
        model = {**model, 'weights': str(encoders / model['weights'])}
    with pytest.raises(UserError, match=message):
        written(tmp_path, task, model, table)
    assert not (tmp_path / 'folder').exists() and not (tmp_path / 'folder.unfinished').exists()


def test_a_folder_with_files_is_never_overwritten(tmp_path):
    (tmp_path / 'a').write_text('')
    with pytest.raises(UserError, match='exists and is not empty'):
        publish.write_folder(publish.Published('decoder', TransformerSettings(8, 8), {}), tmp_path)
    settings = TransformerSettings(8, 8)
    with pytest.raises(UserError, match='a t5 is not written as a decoder'):
        publish.write_folder(publish.Published('decoder', settings, {}, {'family': 't5'}), tmp_path / 'new')


@pytest.mark.slow
def test_runs_are_written_with_adapters_folded_and_measured_without_a_step(tmp_path):
    """A ViT with LoRA from training to the folder and back: the same metrics, and no untrained parameter."""
    model = {
        'model.name': 'vit', 'model.width': 16, 'model.layers': 1, 'model.heads': 2, 'train.steps': 2,
        'methods': 'lora', 'lora.rank': 2, 'train.best': '',
    }  # fmt: skip
    source = api.run('configs/digits.py:tiny', tmp_path / 'source', model)
    assert api.write_weights(tmp_path / 'source', tmp_path / 'folder') == 'vit'
    config = json.loads((tmp_path / 'folder' / 'config.json').read_text())
    assert (config['image_size'], config['num_channels'], len(config['id2label'])) == (8, 1, 10)
    settings = {
        'model.name': 'vit', 'model.weights': str(tmp_path / 'folder'), 'train.steps': 0, 'train.best': '',
    }  # fmt: skip
    run = api.run('configs/digits.py:tiny', tmp_path / 'run', settings)
    for name in ('loss', 'accuracy'):
        assert run.metrics['test'][name] == pytest.approx(source.metrics['test'][name], rel=1e-5)
    notes = json.loads((tmp_path / 'run' / 'description.json').read_text())['notes']
    assert not any('untrained' in note for note in notes)
    assert 'label' in run.model().predict([{'image': np.zeros((8, 8, 1), np.float32)}])[0]


def test_a_task_without_a_family_is_named(tmp_path):
    (tmp_path / 'config.json').write_text(to_json(api.read('configs/adult.py:tiny')))
    with pytest.raises(UserError, match="the task 'table_classification' has no counterpart"):
        api.write_weights(tmp_path, tmp_path / 'folder')
