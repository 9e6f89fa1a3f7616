"""GGUF files: what llama.cpp reads from them, and its greedy texts, are those of the model."""

import json
import os
import pathlib
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from research.data.text.corpus import END, character_tokenizer, train_tokenizer
from research.errors import UserError
from research.interop.publish import Published
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings

gguf = pytest.importorskip('gguf', reason='the extra export is not installed')
from research.export.gguf import PATTERNS, tokenizer_fields, write  # noqa: E402

NODE_MODULES = os.environ.get('TESSERA_NODE_MODULES', '')  # a folder with node-llama-cpp
VOCABULARY, LENGTH = 300, 192
COMMON = {'vocabulary': VOCABULARY, 'length': LENGTH, 'width': 32, 'layers': 2, 'heads': 4, 'initial_scale': 0.3}
GATED = {**COMMON, 'norm': 'rms', 'activation': 'silu', 'gated': True, 'key_value_heads': 2, 'hidden_width': 48}
SHAPES = {
    'gpt2': {**COMMON, 'positions': 'learned', 'query_key_value_bias': True, 'output_bias': True,
             'feed_forward_bias': True},
    'llama': {**GATED, 'tie_embedding': False, 'rotary_length': 64, 'norm_epsilon': 1e-5},
    'tied_llama': {**GATED, 'head_width': 16, 'rotary_base': 5e5},
    'qwen2': {**GATED, 'query_key_value_bias': True},
    'qwen3': {**GATED, 'qk_norm': True, 'head_width': 16},
}  # fmt: skip
PROMPTS = [
    'def f(x):', 'import os', '今天天气', 'emoji 🙂🙃', 'a', '  return', '\n\nclass A',
    'Été à l’école', '0123456789', "don't",
]  # fmt: skip
TEXTS = [
    'def f(x):\n    return x + 1\n',
    'import os, sys\nclass A:\n    pass\n',
    '今天天气很好 🙂\n',
    "it's 2024, don't!\n",
] * 9


@pytest.fixture(scope='module')
def tokenizer():
    return train_tokenizer(TEXTS, VOCABULARY)


def published_of(name: str, tokenizer: Tokenizer) -> tuple[Published, Transformer]:
    """A model of random weights."""
    settings = TransformerSettings(**SHAPES[name])
    model = Transformer(settings)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))['params']
    rng = np.random.default_rng(7)
    params = jax.tree.map(lambda leaf: rng.normal(0.1, 0.3, leaf.shape).astype(np.float32), shapes)
    return Published('decoder', settings, params, tokenizer=tokenizer, length=LENGTH, ids={'eos_token_id': 0}), model


@pytest.fixture(scope='module', params=SHAPES)
def written(request, tokenizer, tmp_path_factory):
    published, model = published_of(request.param, tokenizer)
    file = tmp_path_factory.mktemp('gguf') / f'{request.param}.gguf'
    write(published, file)
    return request.param, published, model, file


def test_metadata_and_tensors(written):
    name, published, _, file = written
    reader, settings = gguf.GGUFReader(file), published.settings
    field = {key: value.contents() for key, value in reader.fields.items()}
    architecture = {'gpt2': 'gpt2', 'qwen2': 'qwen2', 'qwen3': 'qwen3'}.get(name, 'llama')
    assert field['general.architecture'] == architecture and field['tokenizer.ggml.pre'] == 'gpt-2'
    assert field[f'{architecture}.context_length'] == LENGTH and field[f'{architecture}.block_count'] == 2
    assert field['tokenizer.ggml.tokens'][0] == END and field['tokenizer.ggml.token_type'][:2] == [3, 1]
    assert field['tokenizer.ggml.add_bos_token'] is False and field['tokenizer.ggml.eos_token_id'] == 0
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    assert ('output.weight' in tensors) is not settings.tie_embedding
    assert ('rope_freqs.weight' in tensors) is bool(settings.rotary_length)
    count = sum(leaf.size for leaf in jax.tree.leaves(published.params))
    assert sum(tensor.n_elements for key, tensor in tensors.items() if key != 'rope_freqs.weight') == count
    assert all(key.startswith(('blk.', 'token_embd', 'output', 'position_embd', 'rope_freqs')) for key in tensors)


def greedy(published: Published, model: Transformer, tokens: list[int], count: int) -> list[int]:
    """The most probable continuation, computed without a cache."""
    logits = jax.jit(lambda given, length: model.apply({'params': published.params}, given, length)[0])
    tokens = list(tokens)
    for _ in range(count):
        given = np.zeros((1, LENGTH), np.int32)
        given[0, : len(tokens)] = tokens
        tokens.append(int(np.argmax(logits(given, np.array([len(tokens)]))[0, len(tokens) - 1])))
        if tokens[-1] == 0:
            break
    return tokens[-count:] if tokens[-1] else tokens


def llama_cpp(file: pathlib.Path, texts: list[str], count: int) -> list[dict]:
    """The tokens and the greedy continuations of llama.cpp."""
    if not (pathlib.Path(NODE_MODULES) / 'node-llama-cpp').is_dir():
        pytest.skip('node-llama-cpp is absent: set TESSERA_NODE_MODULES to a folder node_modules with it')
    prompts = file.with_suffix('.json')
    prompts.write_text(json.dumps({'texts': texts, 'count': count, 'length': LENGTH}))
    script = pathlib.Path(__file__).with_name('llama_greedy.mjs')
    command = ['node', str(script), NODE_MODULES, str(file), str(prompts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(prompts.read_text())


@pytest.mark.slow
def test_llama_cpp_writes_the_same_greedy_texts(written, tokenizer):
    _, published, model, file = written
    for text, result in zip(PROMPTS, llama_cpp(file, PROMPTS, 128), strict=True):
        assert result['tokens'] == tokenizer.encode(text).ids, text
        wanted = greedy(published, model, result['tokens'], len(result['generated']))
        assert result['generated'] == wanted[-len(result['generated']) :], text


@pytest.mark.slow
@pytest.mark.parametrize('pre', PATTERNS.values())
def test_llama_cpp_splits_texts_as_the_tokenizer_does(pre, tokenizer, tmp_path):
    chosen = tokenizer if pre == 'gpt-2' else split_by(next(key for key, name in PATTERNS.items() if name == pre))
    published, _ = published_of('qwen2', chosen)
    write(published, tmp_path / 'model.gguf')
    rng = np.random.default_rng(1)
    alphabet = [*'abcXYZ 019  \n\t.,;:!?\'"()-_é中文字🙂\r', "'s", "'ll", '  ', '\n\n', '123', ' the', 'ß']
    texts = [''.join(rng.choice(alphabet, rng.integers(1, 40))) for _ in range(1000)]
    for text, result in zip(texts, llama_cpp(tmp_path / 'model.gguf', texts, 0), strict=True):
        assert result['tokens'] == chosen.encode(text).ids, text


def split_by(pattern: str) -> Tokenizer:
    """A byte-level BPE that splits words by another pattern."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), 'isolated'), pre_tokenizers.ByteLevel(False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def test_unused_ids_and_patterns(tokenizer):
    fields = tokenizer_fields(tokenizer, VOCABULARY + 2)
    assert fields['types'][-2:] == [5, 5] and len(set(fields['tokens'])) == VOCABULARY + 2
    assert all(merge.count(' ') == 1 for merge in fields['merges'])
    assert [tokenizer_fields(split_by(key), VOCABULARY)['pre'] for key in list(PATTERNS)[1:]] == ['llama-bpe', 'qwen2']


@pytest.mark.parametrize(('change', 'message'), [
    ({'form': 'masked'}, 'no masked'),
    ({'tokenizer': None}, 'byte-level BPE'),
    ({'tokenizer': character_tokenizer(TEXTS, 30)}, 'no tokenizer of characters'),
    ({'tokenizer': split_by(r'\d')}, 'split texts in another way'),
    ({'settings': {'window': 4}}, 'attention windows'),
    ({'settings': {'activation': 'gelu'}}, 'silu is needed'),
])  # fmt: skip
def test_what_llama_cpp_does_not_have_is_refused(change, message, tokenizer, tmp_path):
    if 'settings' in change:
        change = {'settings': TransformerSettings(**{**SHAPES['tied_llama'], **change['settings']})}
    published, _ = published_of('tied_llama', tokenizer)
    with pytest.raises(UserError, match=message):
        write(published._replace(**change), tmp_path / 'model.gguf')


def test_a_lowercasing_tokenizer_is_refused(tokenizer):
    other = Tokenizer.from_str(tokenizer.to_str())
    other.normalizer = normalizers.Lowercase()
    with pytest.raises(UserError, match='in another way'):
        tokenizer_fields(other, VOCABULARY)
