"""The corpus of the standard library, its tokens, and what counts as a line of Python."""

import hashlib
import pickle
import sysconfig

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from research.data.dataset import open_dataset
from research.data.sets import python_source
from research.data.sets.python_source import split_of
from research.data.text.corpus import (
    END,
    Blocks,
    bytes_of_tokens,
    describe_documents,
    encode_documents,
    encode_text,
    load_array,
    read_documents,
    save_array,
    train_tokenizer,
)
from research.data.text.python_lines import is_python_line, python_lines, whole_lines
from research.errors import UserError


@pytest.fixture(scope='module')
def corpus():
    return read_documents(python_source.open(megabytes=0.3))


@pytest.fixture(scope='module')
def tokenizer(corpus):
    return train_tokenizer(corpus['train'], 400)


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def many(count):
    return {f'module{i}.py': f'value = {i}\n' * 20 for i in range(count)}


def test_library_of_this_interpreter(corpus):
    assert set(corpus) == {'train', 'validation', 'test'}
    about = describe_documents('library', corpus)
    sizes = about['bytes']
    assert 0.2e6 < sizes['train'] <= 0.27e6 and min(sizes.values()) > 1000
    assert read_documents(python_source.open(megabytes=0.3)) == corpus
    assert min(about['documents'].values()) > 0 and len(about['sha256']) == 64
    row = python_source.open(0.3).source('train')[0]
    assert row['name'].endswith('.py') and row['text'] == corpus['train'][0]


def test_no_text_of_one_split_is_in_another():
    whole = read_documents(python_source.open(megabytes=0))
    texts = [text for documents in whole.values() for text in documents]
    assert len(texts) == len(set(texts)) > 300
    train = {hashlib.sha256(text.encode()).digest() for text in whole['train']}
    assert not any(hashlib.sha256(text.encode()).digest() in train for text in whole['test'])
    sizes = describe_documents('library', whole)['bytes']
    assert 0.8 < sizes['train'] / sum(sizes.values()) < 0.97


def test_duplicates_tests_tables_and_other_encodings_are_left_out(tmp_path):
    files = many(60)
    first = split_of('module0.py')
    files.update({'a_copy.py': files['module7.py'], 'test/test_x.py': 'x = 1\n', 'empty.py': '  \n'})
    files.update({'encodings/cp1.py': 'table = 1\n', 'site-packages/p.py': 'p = 1\n'})
    files['latin.py'] = b'x = "\xe9"\n'
    files['windows.py'] = 'one = 1\r\ntwo = 2\r\n'
    write(tmp_path, files)
    corpus = read_documents(python_source.open(0, str(tmp_path)))
    texts = [text for documents in corpus.values() for text in documents]
    assert len(texts) == 61 and sum(text == files['module7.py'] for text in texts) == 1
    assert 'one = 1\ntwo = 2\n' in texts
    assert files['module0.py'] in corpus[first]
    assert files['module7.py'] in corpus[split_of('a_copy.py')]  # the first of the names


def test_a_smaller_corpus_keeps_every_module_in_its_split(tmp_path):
    write(tmp_path, many(200))
    whole, part = (read_documents(python_source.open(size, str(tmp_path))) for size in (0, 0.01))
    for split in whole:
        assert set(part[split]) <= set(whole[split])
        assert part[split]
    few, many_texts = describe_documents('a', part), describe_documents('a', whole)
    assert few['bytes']['train'] <= 9000 and few['sha256'] != many_texts['sha256']


def test_impossible_corpora_are_refused(tmp_path):
    with pytest.raises(UserError, match='too little Python source'):
        read_documents(python_source.open(1.0, str(tmp_path)))
    with pytest.raises(UserError, match='megabytes must be zero or more'):
        open_dataset({'name': 'python_source', 'megabytes': -1.0})
    with pytest.raises(UserError, match='python_source'):
        open_dataset({'name': 'pythn_source'})
    with pytest.raises(UserError, match='did you mean .megabytes'):
        open_dataset({'name': 'python_source', 'megabites': 1.0})


@given(st.text(max_size=60))
@example(f'a{END}b')
@example('日本語\tcafé 🎉\r\n  x')
@settings(max_examples=60, deadline=None)
def test_any_text_survives_and_bytes_add_up(tokenizer, text):
    tokens = encode_text(tokenizer, text)
    assert tokenizer.decode(tokens, skip_special_tokens=True) == text
    assert bytes_of_tokens(tokenizer)[tokens].sum() == len(text.encode())
    assert tokenizer.token_to_id(END) not in tokens


def test_tokenizer_is_exact_deterministic_and_survives_pickling(corpus, tokenizer):
    assert tokenizer.get_vocab_size() == 400 and tokenizer.token_to_id(END) == 0
    assert train_tokenizer(corpus['train'], 400).to_str() == tokenizer.to_str()
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert encode_text(copy, f'x{END}') == encode_text(tokenizer, f'x{END}')
    with pytest.raises(UserError, match='257'):
        train_tokenizer(['a'], 256)
    with pytest.raises(UserError, match='give only'):
        train_tokenizer(['ab'], 300)
    with pytest.raises(UserError, match='half of a character'):
        encode_text(tokenizer, '\ud800')


def test_stream_and_blocks_hold_every_token_once(corpus, tokenizer, tmp_path):
    documents = corpus['validation']
    stream = encode_documents(tokenizer, documents)
    assert stream.dtype == np.uint16 and np.sum(stream == 0) == len(documents)
    joined = [token for text in documents for token in [*encode_text(tokenizer, text), 0]]
    np.testing.assert_array_equal(stream, joined)
    blocks = Blocks(stream, 16)
    targets = np.concatenate([row['tokens'][1:] for row in blocks])
    np.testing.assert_array_equal(targets, stream[1 : 1 + 16 * len(blocks)])
    assert len(blocks) == (len(stream) - 1) // 16 and blocks[0]['tokens'].shape == (17,)
    with pytest.raises(IndexError):
        blocks[len(blocks)]
    from etils import epath

    save_array(epath.Path(tmp_path) / 'x.npy', stream)
    np.testing.assert_array_equal(load_array(epath.Path(tmp_path) / 'x.npy'), stream)


@pytest.mark.parametrize(
    'line',
    ['x = 1', '    return x', 'call(a,', ')', '# note', '"""Begin', 'if a:', 'f"{a!r}"', 'b[1:]', 'é = 1'],
)
def test_lines_of_python(line):
    assert is_python_line(line)


@pytest.mark.parametrize('line', ["it's", 'a $ b', 'what?', 'a ! b', '`x`', '"open', 'x = \x00', '” q'])
def test_lines_that_are_not(line):
    assert not is_python_line(line)


def test_share_counts_whole_lines_only():
    assert whole_lines("ial = 1\n    x = 2\n\n  what?\nhalf") == ['x = 2', 'what?']
    assert python_lines(["'\nx = 2\nwhat?\n'", 'no whole line', '\na\n']) == (2, 3)


def test_most_lines_of_the_library_are_python():
    with open(f'{sysconfig.get_paths()["stdlib"]}/textwrap.py') as file:
        good, lines = python_lines([file.read()])
    assert lines > 300 and good / lines > 0.9
