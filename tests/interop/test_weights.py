"""Hugging Face folders: logits of the reference, round trips to the bit, tokenizers, and what is refused."""

import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import parity
import pytest
from safetensors.numpy import load_file, save_file

from research.errors import UserError
from research.interop import weights
from research.interop.files import SINGLE, locate
from research.interop.sentence_pieces import from_marian, from_t5
from research.ops.paths import flatten_paths

FOLDER = pathlib.Path(__file__).parent / 'fixtures'
FAMILIES = sorted(folder.name for folder in FOLDER.iterdir())
INPUTS = ('images', 'tokens', 'length', 'types', 'source', 'source_length')


def equal_bits(one, other):
    """Checks that two {name: array} are the same in names, types, shapes and bits."""
    assert set(one) == set(other)
    for name in one:
        assert one[name].dtype == other[name].dtype and one[name].shape == other[name].shape
        assert one[name].tobytes() == other[name].tobytes(), name


def edited(tmp_path, name, change):
    """Returns a copy of a folder whose tensors `change` edits in place."""
    folder = tmp_path / name
    shutil.copytree(FOLDER / name, folder)
    tensors = load_file(folder / SINGLE)
    change(tensors)
    save_file(tensors, folder / SINGLE, {'format': 'pt'})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize('name', FAMILIES)
def test_logits_are_those_of_the_reference(name):
    stored = dict(np.load(FOLDER / name / 'reference.npz'))
    inputs = {key: stored.pop(key) for key in INPUTS if key in stored}
    assert 'images' in inputs or min(inputs['length']) < inputs['tokens'].shape[1]  # padding is masked
    assert parity.largest_difference(weights.read(FOLDER / name), inputs, stored) < 1e-4


@pytest.mark.parametrize('name', FAMILIES)
def test_a_round_trip_keeps_every_bit(name, tmp_path):
    pretrained = weights.read(FOLDER / name)
    weights.write(pretrained, tmp_path)
    theirs, ours = load_file(FOLDER / name / SINGLE), load_file(tmp_path / SINGLE)
    for left in pretrained.about['left_out']:
        del theirs[left]
    equal_bits(theirs, ours)
    again = weights.read(tmp_path)
    assert again.settings == pretrained.settings and again.family == pretrained.family
    equal_bits(*(flatten_paths(each.params) for each in (pretrained, again)))
    assert again.about['config'] == pretrained.about['config']
    own = pretrained._replace(about={'image': pretrained.about['image']})
    weights.write(own, tmp_path / 'own')  # config.json from the settings alone
    assert weights.read(tmp_path / 'own').settings == pretrained.settings


def test_blocks_are_stacked_and_keep_the_file_s_type(tmp_path):
    def half(tensors):
        tensors.update({name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()})

    params = weights.read(edited(tmp_path, 'gpt2', half)).params
    kernel = params['blocks']['attention']['query']['kernel']
    assert kernel.shape == (2, 16, 16) and kernel.dtype == ml_dtypes.bfloat16
    whole = load_file(FOLDER / 'gpt2' / SINGLE)['transformer.h.1.attn.c_attn.weight']
    np.testing.assert_array_equal(kernel[1], whole[:, :16].astype(ml_dtypes.bfloat16))


def test_shards_with_an_index_are_read_and_written(tmp_path):
    pretrained = weights.read(FOLDER / 'llama')
    weights.write(pretrained, tmp_path, shard_bytes=6000)
    files = sorted(file.name for file in tmp_path.glob('*.safetensors'))
    assert files[0] == f'model-00001-of-{len(files):05d}.safetensors' and len(files) > 1
    equal_bits(*(flatten_paths(each.params) for each in (pretrained, weights.read(tmp_path))))
    (tmp_path / files[1]).rename(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match=f'names {files[1]}, which is missing'):
        weights.read(tmp_path)


def test_the_first_berts_names_and_bare_models_are_read(tmp_path):
    def old(tensors):
        for name in list(tensors):
            if 'LayerNorm' in name and name.startswith('bert.'):
                tensors[name.replace('.weight', '.gamma').replace('.bias', '.beta')] = tensors.pop(name)

    pretrained = weights.read(FOLDER / 'bert')
    equal_bits(*(flatten_paths(each.params) for each in (pretrained, weights.read(edited(tmp_path, 'bert', old)))))

    def bare(tensors):
        for name in list(tensors):
            tensor = tensors.pop(name)
            if name.startswith('bert.'):
                tensors[name.removeprefix('bert.')] = tensor

    body = weights.read(edited(tmp_path / 'bare', 'bert', bare))
    assert 'head' not in body.params and not body.settings['head_transform'] and body.settings['pooler']
    weights.write(body, tmp_path / 'again')
    equal_bits(load_file(tmp_path / 'again' / SINGLE), load_file(tmp_path / 'bare' / 'bert' / SINGLE))


def test_what_is_missing_extra_or_misshapen_is_named(tmp_path):
    def without(tensors):
        del tensors['model.layers.1.mlp.up_proj.weight']

    def more(tensors):
        tensors['model.layers.0.self_attn.q_proj.bias'] = np.zeros(16, np.float32)

    def other(tensors):
        tensors['model.norm.weight'] = np.zeros(8, np.float32)

    for number, (change, message) in enumerate(
        [
            (without, r'lacks these tensors: layers\.1\.mlp\.up_proj\.weight'),
            (more, r'leaves no place for: model\.layers\.0\.self_attn\.q_proj\.bias'),
            (other, r'model\.norm\.weight has shape \[8\], config\.json asks for \[16\]'),
        ]
    ):
        with pytest.raises(UserError, match=message):
            weights.read(edited(tmp_path / str(number), 'llama', change))


@pytest.mark.parametrize(
    'name, change, message',
    [
        ('llama', {'model_type': 'lama'}, r"model_type 'lama' is not supported; supported: bert, .*llama, marian"),
        ('bert', {'model_type': 'bart'}, "'bart' is not supported; supported: bert"),
        ('gpt2', {'n_layer': 10**9}, 'asks for 1,000,000,000 layers, and the folder holds 28 tensors'),
        ('vit', {'image_size': [12, 16]}, 'image_size=.12, 16. is not a square'),
        ('llama', {'hidden_act': 'quick_gelu'}, "hidden_act='quick_gelu' is not supported"),
        ('llama', {'rope_parameters': {'rope_type': 'yarn'}}, "'yarn' are not supported"),
        ('bert', {'position_embedding_type': 'relative_key'}, 'relative_key'),
        ('bert', {'hidden_size': None}, 'hidden_size'),
        ('bert', {'vocab_size': 40}, r'has shape \[48, 16\], config.json asks for \[40, 16\]'),
    ],
)
def test_configs_that_cannot_be_expressed_are_refused(name, change, message, tmp_path):
    shutil.copytree(FOLDER / name, tmp_path / name)
    file = tmp_path / name / 'config.json'
    config = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    with pytest.raises(UserError, match=message):
        weights.read(tmp_path / name)


def test_a_tokenizer_beyond_the_embedding_is_refused(tmp_path):
    shutil.copytree(FOLDER / 'bert', tmp_path / 'bert')
    with (tmp_path / 'bert' / 'vocab.txt').open('a') as file:
        file.write('extra\n')
    with pytest.raises(UserError, match='ids up to 48, and the embedding 48 rows'):
        weights.read(tmp_path / 'bert')


def test_bert_s_tokenizer_cuts_texts_as_the_reference_does():
    tokenizer = weights.read(FOLDER / 'bert').tokenizer
    for case in json.loads((FOLDER / 'bert' / 'tokens.json').read_text(encoding='utf-8')):
        assert tokenizer.encode(case['text']).ids == case['ids']
    assert tokenizer.encode('我爱北京').tokens == ['[CLS]', '我', '爱', '北', '京', '[SEP]']
    assert tokenizer.decode(tokenizer.encode('UNAFFORDABLE fox').ids) == 'unaffordable fox'


@pytest.mark.parametrize('name', ['t5_gated', 'marian'])
def test_sentence_pieces_cut_texts_as_the_reference_does(name):
    cases = json.loads((FOLDER / name / 'tokens.json').read_text(encoding='utf-8'))
    for case in cases:
        side = case['file'].removesuffix('.spm')
        tokenizer = from_t5(FOLDER / name) if name == 't5_gated' else from_marian(FOLDER / name, side)
        assert tokenizer.encode(case['text']).ids == case['ids'], case
        assert tokenizer.get_vocab_size() == 40
    assert tokenizer.decode(tokenizer.encode(' das  land').ids) == 'das land'


def test_damaged_sentence_pieces_are_refused(tmp_path):
    whole = (FOLDER / 't5_gated' / 'spiece.model').read_bytes()
    for data, message in (
        (whole[:-3], 'is damaged'), (b'\x0f', 'is damaged'), (b'', 'not a unigram SentencePiece model'),
    ):  # fmt: skip
        (tmp_path / 'spiece.model').write_bytes(data)
        with pytest.raises(UserError, match=message):
            from_t5(tmp_path)


def test_gpt2_s_tokenizer_loses_nothing():
    tokenizer = weights.read(FOLDER / 'gpt2').tokenizer
    text = 'hello  wörld\n我<|endoftext|>'
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert tokenizer.encode('hello<|endoftext|>').ids[-1] == tokenizer.token_to_id('<|endoftext|>')


@pytest.mark.parametrize(
    'files, message',
    [
        ({}, 'has no config.json'),
        ({'config.json': '{'}, 'config.json is damaged'),
        ({'config.json': '{"model_type": "bert"}'}, 'has neither model.safetensors nor'),
        ({'config.json': '{"model_type": "bert"}', 'pytorch_model.bin': ''}, 'pytorch_model.bin holds pickled'),
        ({'config.json': '{"model_type": "bert"}', SINGLE: 'x'}, 'is damaged'),
    ],
)
def test_damaged_folders_are_refused(files, message, tmp_path):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        weights.read(tmp_path)


def test_names_that_are_nowhere_are_refused(tmp_path):
    with pytest.raises(UserError, match='no such folder, and not a valid repository name'):
        locate(str(tmp_path / 'absent' / 'far'))
    with pytest.raises(UserError, match='is a folder, which has no revisions'):
        locate(str(tmp_path), 'main')
