"""Folders that others made: whatever their JSON files hold, they are read or refused with a message."""

import json
import pathlib
import random
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from research.data.text import corpus
from research.data.text.corpus import END, begin_of, bytes_of_tokens
from research.errors import UserError
from research.interop import pretrained, weights
from research.interop.files import INDEX, SINGLE
from research.interop.vocabulary import read_tokenizer
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings
from research.tasks import language_model

FOLDER = pathlib.Path(__file__).parent / 'fixtures'
FAMILIES = sorted(folder.name for folder in FOLDER.iterdir())
ODD = (None, 'x', -1, 0, 1.5, 10**9, 10**30, [], [1, 2], {}, {'a': 1}, True, float('nan'), 'gelu', [[]])


def copied(tmp_path, name, **changes):
    """A copy of a fixture with other values in its config.json."""
    folder = tmp_path / name
    shutil.copytree(FOLDER / name, folder)
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize('name', FAMILIES)
def test_a_config_with_any_odd_value_is_read_or_refused(name, tmp_path):
    config = json.loads((FOLDER / name / 'config.json').read_text())
    cases = [(key, value) for key in config for value in ODD]
    for number, (key, value) in enumerate(random.Random(name).sample(cases, 8)):
        folder = copied(tmp_path / str(number), name, **{key: value})
        try:
            weights.read(folder)
        except UserError as error:
            assert len(str(error)) < 600
        shutil.rmtree(folder)


@pytest.mark.parametrize('text', [
    '{"n_layer": ' + '9' * 5000 + '}', '[' * 100_000, '{"model_type": "\\ud800"}', '[1]', 'null', '"bert"',
    '{"a": 1e999}', '\ufeff{',
    '{"model_type": ["bert"]}', '{"model_type": {}}', '{"model_type": "bert", "model_type": "gpt2"}',
])  # fmt: skip
def test_json_that_cannot_be_used_is_refused(text, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(UserError, match='config.json'):
        weights.read(tmp_path)


def test_a_byte_order_mark_before_a_config_changes_nothing(tmp_path):
    folder = copied(tmp_path, 'gpt2')
    (folder / 'config.json').write_bytes(b'\xef\xbb\xbf' + (folder / 'config.json').read_bytes())
    assert weights.read(folder).settings == weights.read(FOLDER / 'gpt2').settings


@pytest.mark.parametrize('value', [5, None, '../model.safetensors', '/etc/passwd', 'model.bin', ['model.safetensors']])
def test_an_index_names_files_of_its_folder_alone(value, tmp_path):
    folder = copied(tmp_path, 'gpt2')
    (folder / INDEX).write_text(json.dumps({'weight_map': {'wte.weight': value}}))
    with pytest.raises(UserError, match='names no .safetensors file of the folder'):
        weights.read(folder)
    (folder / INDEX).write_text(json.dumps({'weight_map': [1]}))
    with pytest.raises(UserError, match='is damaged'):
        weights.read(folder)


@pytest.mark.parametrize('count', [10**9, -1, 'x', None, True])
def test_tokenizer_files_do_not_decide_how_much_is_made(count, tmp_path):
    folder = copied(tmp_path, 't5_gated')
    (folder / 'tokenizer_config.json').write_text(json.dumps({'extra_ids': count}))
    with pytest.raises(UserError, match='extra_ids must be an integer'):
        weights.read(folder)


def test_a_tokenizer_that_pads_and_cuts_does_neither_here(tmp_path):
    words = {'[UNK]': 0, '[PAD]': 1, 'a': 2, 'b': 3}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(pad_id=1, pad_token='[PAD]', length=128)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(tmp_path / 'tokenizer.json'))
    assert Tokenizer.from_file(str(tmp_path / 'tokenizer.json')).encode('a b').ids == [2, 3] + [1] * 126
    assert read_tokenizer(tmp_path).encode('a b a b a b').ids == [2, 3, 2, 3, 2, 3]


def test_the_head_of_a_roberta_is_gelu_whatever_its_blocks_are(tmp_path):
    """transformers' RobertaLMHead calls gelu by name; written again in NumPy from the hidden states on."""
    read = weights.read(copied(tmp_path, 'roberta', hidden_act='relu'))
    settings = TransformerSettings(**read.settings)
    assert settings.activation == 'relu' and settings.head_activation == 'gelu'
    states = np.random.default_rng(0).normal(size=(1, 3, settings.width)).astype(np.float32)
    logits = Transformer(settings).apply({'params': read.params}, jnp.asarray(states), method='logits')
    head = read.params['head']
    x = states @ head['transform']['kernel'] + head['transform']['bias']
    x = np.asarray(jax.nn.gelu(x, approximate=False), np.float64)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + settings.norm_epsilon)
    x = x * head['norm']['scale'] + head['norm']['bias']
    expected = x @ read.params['tokens']['embedding'].T + head['bias']
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    weights.write(read, tmp_path / 'again')
    assert json.loads((tmp_path / 'again' / 'config.json').read_text())['hidden_act'] == 'relu'
    assert weights.read(copied(tmp_path / 'b', 'bert', hidden_act='relu')).settings.get('head_activation', '') == ''


@pytest.mark.parametrize('size', [12, [12, 12], {'height': 12, 'width': 12}])
def test_the_size_of_pictures_may_be_a_list(size, tmp_path):
    plain = weights.read(FOLDER / 'vit')
    found = weights.read(copied(tmp_path, 'vit', image_size=size, patch_size=[4, 4]))
    assert found.about['image'] == plain.about['image'] and found.settings == plain.settings


def test_the_moments_of_a_preprocessor_are_checked(tmp_path):
    folder, prepared = copied(tmp_path, 'vit'), epath.Path(tmp_path / 'prepared')
    model = {'weights': str(folder)}
    for values in ([0.5], 'x', [0.5, 0.5, None], [1, 2, float('nan')]):
        (folder / 'preprocessor_config.json').write_text(json.dumps({'image_mean': values}))
        with pytest.raises(UserError, match='preprocessor_config.json: expected 3 numbers'):
            pretrained.store_pictures(model, prepared, (12, 12, 3))
    (folder / 'preprocessor_config.json').write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    pretrained.store_pictures(model, prepared, (12, 12, 3))
    stored = json.loads((prepared / 'weights.json').read_text())
    assert stored['mean'] == [0.1, 0.2, 0.3] and stored['std'] == [0.5] * 3


def test_a_marian_written_from_its_settings_names_its_tokens(tmp_path):
    read = weights.read(FOLDER / 'marian')
    wanted = read.about['config']
    for tokenizer in (None, read.tokenizer):
        weights.write(read._replace(about={'image': {}}, tokenizer=tokenizer), tmp_path)
        config = json.loads((tmp_path / 'config.json').read_text())
        for key in ('pad_token_id', 'eos_token_id', 'decoder_start_token_id', 'forced_eos_token_id'):
            assert config[key] == wanted[key]
    weights.write(weights.read(FOLDER / 't5')._replace(about={'image': {}}), tmp_path / 't5')
    config = json.loads((tmp_path / 't5' / 'config.json').read_text())
    assert (config['pad_token_id'], config['decoder_start_token_id'], config['eos_token_id']) == (0, 0, 1)
    weights.write(weights.read(FOLDER / 'gpt2')._replace(about={'image': {}}), tmp_path / 'gpt2')
    config = json.loads((tmp_path / 'gpt2' / 'config.json').read_text())
    assert config['eos_token_id'] == read_tokenizer(FOLDER / 'gpt2').token_to_id('<|endoftext|>')
    assert (tmp_path / 'gpt2' / SINGLE).exists()


def test_a_tokenizer_of_pieces_with_single_bytes_makes_streams(tmp_path):
    """As of Llama 2 and Mistral: a sign for the space, characters, and 256 tokens for all other bytes."""
    pieces = ['<unk>', '<s>', '</s>', *(f'<0x{byte:02X}>' for byte in range(256)), '\u2581', 'a', 'b', '\u2581a', 'ab']
    merges = [('\u2581', 'a'), ('a', 'b')]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token='<unk>', byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='never', split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(['<unk>', '<s>', '</s>'])
    folder = copied(tmp_path, 'llama', vocab_size=300, eos_token_id=2)
    tensors = load_file(folder / SINGLE)
    for name in ('model.embed_tokens.weight', 'lm_head.weight'):
        if name in tensors:
            tensors[name] = np.zeros((300, tensors[name].shape[1]), np.float32)
    save_file(tensors, folder / SINGLE, {'format': 'pt'})
    tokenizer.save(str(folder / 'tokenizer.json'))
    found = pretrained.stream_tokenizer({'weights': str(folder)}, epath.Path(tmp_path / 'prepared'))
    text = 'ab a aba caf\u00e9 \u6211'
    ids = found.encode(text).ids
    assert found.decode(ids) == text and found.token_to_id(END) == 2
    assert int(bytes_of_tokens(found)[ids].sum()) == len(text.encode())


def test_all_end_tokens_are_kept(tmp_path):
    """config.json may list several, generation_config.json further ones; ids without a token do not count."""
    folder, prepared = copied(tmp_path, 'gpt2', eos_token_id=[5, 7, 999]), epath.Path(tmp_path / 'prepared')
    (folder / 'generation_config.json').write_text('{"eos_token_id": [7, 9, true, "x"]}')
    model = {'weights': str(folder)}
    tokenizer = pretrained.stream_tokenizer(model, prepared)
    assert pretrained.read_ends(model, prepared, tokenizer.token_to_id(END))[1:] == (5, 7, 9)
    assert pretrained.read_ends({}, prepared, 3) == (3,)


def test_a_language_model_needs_a_token_that_ends_a_text(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({'a': 0}, 'a'))
    with pytest.raises(UserError, match='the tokenizer has no token <|endoftext|>'):
        corpus.end_of(tokenizer)
    with pytest.raises(UserError, match='add it as a special token'):
        corpus.encode_documents(tokenizer, ['a'])


def test_a_trained_head_that_is_not_read_is_named(tmp_path, monkeypatch):
    folder, prepared = copied(tmp_path, 'bert'), epath.Path(tmp_path / 'prepared')
    tensors = load_file(folder / SINGLE)
    head = {'classifier.weight': np.zeros((3, 16), np.float32), 'classifier.bias': np.zeros(3, np.float32)}
    save_file({**tensors, **head}, folder / SINGLE, {'format': 'pt'})
    said = []
    monkeypatch.setattr('absl.logging.warning', lambda text, *values: said.append(text % values))
    for name, count in ((str(folder), 1), (str(FOLDER / 'bert'), 0)):
        said.clear()
        pretrained.store({'weights': name}, prepared, 'encoder')
        pretrained.make_load({'weights': name}, prepared)()
        assert len(said) == count
        assert all('its trained head is not loaded (classifier.' in text for text in said)


def test_documents_and_prompts_begin_as_the_tokenizer_says(tmp_path):
    described = json.loads(weights.read(FOLDER / 'gpt2').tokenizer.to_str().replace(END, '</s>'))
    number = len(described['model']['vocab'])
    described['model']['vocab']['<s>'] = number
    tokenizer = Tokenizer.from_str(json.dumps(described))
    tokenizer.add_special_tokens(['<s>', '</s>'])
    tokenizer.post_processor = processors.TemplateProcessing(
        '<s> $A </s>', special_tokens=[('<s>', number), ('</s>', tokenizer.token_to_id('</s>'))]
    )
    assert begin_of(tokenizer) == [number] and begin_of(weights.read(FOLDER / 'gpt2').tokenizer) == []
    folder = copied(tmp_path, 'gpt2', eos_token_id=tokenizer.token_to_id('</s>'))
    for name in ('vocab.json', 'merges.txt'):
        (folder / name).unlink()
    tokenizer.save(str(folder / 'tokenizer.json'))
    texts = ['hello world', 'the quick fox']
    (tmp_path / 'a.txt').write_text(''.join(f'{text} {row}\n' for row in range(60) for text in texts))
    config = types.SimpleNamespace(
        task={'name': 'language_model', 'vocabulary': 300, 'length': 16, 'max_new_tokens': 4},
        model={'weights': str(folder)}, data={'reader': 'lines', 'train': str(tmp_path / 'a.txt')},
    )  # fmt: skip
    prepared = epath.Path(tmp_path / 'prepared')
    language_model.prepare(config, prepared)
    stream, end = np.load(prepared / 'train.npy'), tokenizer.token_to_id('</s>')
    assert stream[0] == number and (stream[1:][stream[:-1] == end] == number).all() and (stream == end).sum() > 50
    prompt = language_model.make(config, prepared).encode({'text': 'hello'})
    assert prompt['tokens'][: prompt['length']].tolist() == [number, *tokenizer.encode('hello').ids[1:-1]]
