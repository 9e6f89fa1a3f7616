"""Character tokenizers, what is stored of a corpus, and requests that cannot be read."""

import hashlib
import json

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.dataset import DataSet, open_dataset
from research.data.text.corpus import (
    END,
    UNKNOWN,
    bytes_of_tokens,
    character_tokenizer,
    decode_text,
    encode_text,
    make_tokenizer,
    train_tokenizer,
)
from research.data.text.token_streams import read_stats, read_stream, request_text, request_tokens, store_streams
from research.errors import UserError

ALPHABET = 'abc \n猫é'


@given(st.text(alphabet=ALPHABET, max_size=40))
@settings(max_examples=40, deadline=None)
def test_characters_survive_and_bytes_add_up(text):
    tokenizer = character_tokenizer([ALPHABET], 9)
    tokens = encode_text(tokenizer, text)
    assert len(tokens) == len(text) and decode_text(tokenizer, tokens) == text
    assert bytes_of_tokens(tokenizer)[tokens].sum() == len(text.encode())


def test_characters_that_find_no_place_are_unknown():
    tokenizer = character_tokenizer(['aaab', 'abbc'], 5, ('[MASK]',))
    assert tokenizer.get_vocab() == {END: 0, '[MASK]': 1, UNKNOWN: 2, 'a': 3, 'b': 4}
    assert encode_text(tokenizer, 'abc\n') == [3, 4, 2, 2]
    assert decode_text(tokenizer, [0, 1, 2, 3]) == f'{END}[MASK]{UNKNOWN}a'
    assert 0 not in encode_text(tokenizer, END) and 1 not in encode_text(tokenizer, '[MASK]')
    assert bytes_of_tokens(tokenizer).tolist() == [0, 0, 3, 1, 1]
    for size in (3, 8):
        with pytest.raises(UserError, match='3 characters, so that 4 to 6 tokens'):
            character_tokenizer(['aaab', 'abbc'], size, ('[MASK]',))
    with pytest.raises(UserError, match='did you mean .character'):
        make_tokenizer('charakter', ['a'], 4)


def test_special_tokens_of_byte_pairs_are_never_read_from_a_text():
    tokenizer = train_tokenizer(['ab ab'], 260, ('[MASK]', '<extra_id_0>'))
    assert [tokenizer.token_to_id(name) for name in (END, '[MASK]', '<extra_id_0>')] == [0, 1, 2]
    tokens = encode_text(tokenizer, '[MASK]<extra_id_0>')
    assert min(tokens) > 2 and decode_text(tokenizer, tokens) == '[MASK]<extra_id_0>'
    with pytest.raises(UserError, match='259'):
        train_tokenizer(['ab'], 258, ('[MASK]', '<extra_id_0>'))


def texts(documents):
    return DataSet(lambda split: [{'text': text} for text in documents[split]], 'test', tuple(documents))


@pytest.fixture
def folder(tmp_path):
    data = texts({'train': ('ab' * 20, 'abc'), 'validation': ('abcab', ' ', 'abc')})
    store_streams(data, epath.Path(tmp_path), 'character', 5, 4)
    return epath.Path(tmp_path)


def test_what_is_stored(folder):
    facts = read_stats(folder, 5)
    assert facts.counts.tolist() == [2, 0, 21, 21, 1] and facts.bytes.tolist() == [0, 3, 1, 1, 1]
    assert read_stream(folder, 'validation').tolist() == [2, 3, 4, 2, 3, 0]
    about = json.loads((folder / 'corpus.json').read_text())
    assert about['corpus'] == 'test' and about['tokens'] == {'train': 45, 'validation': 6}
    assert about['documents'] == {'train': 2, 'validation': 1} and about['bytes'] == {'train': 43, 'validation': 5}
    with pytest.raises(UserError, match="no 'test'.*validation"):
        read_stream(folder, 'test')
    with pytest.raises(UserError, match='ids up to 4, beyond the embedding of 3'):
        read_stats(folder, 3)
    with pytest.raises(UserError, match='validation split has 6 tokens, too few for one row of 9'):
        store_streams(texts({'train': ('ab' * 20,), 'validation': ('abcab',)}), folder, 'character', 4, 9)


def test_requests_that_cannot_be_read(folder):
    facts = read_stats(folder, 5)
    assert request_tokens(facts, 'abc', 3, '') == [2, 3, 4]
    for text, message in [('abd', "'d', a character"), ('abca', '4 tokens; no more'), ('a' * 99, '99 characters')]:
        with pytest.raises(UserError, match=message):
            request_tokens(facts, text, 3, 'no more')
    for raw, message in [({}, "no 'text'"), ({'text': ''}, 'empty'), ({'text': 3}, 'not a string')]:
        with pytest.raises(UserError, match=message):
            request_text(raw, 'to continue')


def test_tiny_shakespeare_is_split_as_usual(data, tmp_path):
    shakespeare = open_dataset({'name': 'tiny_shakespeare', 'folder': str(data / 'tiny_shakespeare')})
    train, validation = (shakespeare.source(split)[0]['text'] for split in shakespeare.splits)
    assert (len(train), len(validation)) == (1_003_854, 111_540)
    assert hashlib.sha256((train + validation).encode()).hexdigest()[:12] == '86c4e6aa9db7'
    assert len(set(train)) == 65 == len(set(train + validation))
    (tmp_path / 'input.txt').write_text('too little')
    with pytest.raises(UserError, match='10 characters'):
        open_dataset({'name': 'tiny_shakespeare', 'folder': str(tmp_path)}).source('train')
    with pytest.raises(UserError, match="has no 'test' split"):
        shakespeare.source('test')


def test_streams_take_few_bytes(folder):
    assert read_stream(folder, 'train').dtype == np.uint16
