"""Texts as words and words as ids: every classic step, rows of fixed length, n-grams."""

import unicodedata

import numpy as np
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from research.data.dataset import open_dataset
from research.data.text import tokens
from research.data.text.tokens import Frame, frame_ids
from research.data.text.word_segmentation import CHINESE_STOP_WORDS, CLEAN, WordSettings, make_words
from research.errors import UserError


@pytest.mark.parametrize(('steps', 'text', 'cleaned'), [
    (('unicode', 'lower'), 'ＢＥＲＴ　ﬁne', 'bert fine'),
    (('html',), '<b>Tom &amp; Jerry</b>', ' Tom & Jerry '),
    (('addresses',), 'see https://a.b/c?d or me@x.org now', 'see   or   now'),
    (('numbers',), '3.14 and 1,000', '0 and 0'),
    (('accents',), 'café 北京', 'cafe 北京'),
    (('punctuation',), 'well-known：是。', 'well known 是 '),
])  # fmt: skip
def test_a_step_of_cleaning(steps, text, cleaned):
    for step in steps:
        text = CLEAN[step](text)
    assert text == cleaned


def test_words_of_english_are_cleaned_segmented_stopped_and_stemmed():
    words = make_words(WordSettings(stop_words='english', stemmer='english'))
    assert words("The films weren't happily running, were they?") == ['film', "weren't", 'happili', 'run', ',', '?']
    assert make_words(WordSettings(segment='space', clean=()))('A  b.') == ['A', 'b.']


def test_words_of_chinese_are_those_of_its_dictionary():
    words = make_words(WordSettings(segment='chinese'))
    assert words('气象台发布了高温警报。') == ['气象台', '发布', '了', '高温', '警报', '。']
    stopped = make_words(WordSettings(segment='chinese', stop_words='chinese'))('气象台发布了高温警报。')
    assert stopped == ['气象台', '发布', '高温', '警报'] and '了' in CHINESE_STOP_WORDS
    assert words('BERT 模型 2026年') == ['bert', '模型', '2026', '年']


@pytest.mark.parametrize(('change', 'message'), [
    ({'clean': ('lowr',)}, "did you mean 'lower'"),
    ({'stemmer': 'englsh'}, "did you mean 'english'"),
    ({'stop_words': 'german'}, 'stop_words'),
    ({'segment': 'sapce'}, "did you mean 'space'"),
])  # fmt: skip
def test_settings_that_do_not_exist_are_named(change, message):
    with pytest.raises(UserError, match=message):
        make_words(WordSettings()._replace(**change))
    with pytest.raises(UserError, match='half of a character at position 1'):
        make_words(WordSettings())('a\ud800')


@pytest.mark.parametrize('kind', ['words', 'characters', 'bpe'])
def test_tokens_of_chinese_are_read_back(kind, tmp_path):
    """Segmentation, a vocabulary or BPE, ids, and back: what was in the vocabulary is what a person reads."""
    texts = [row['text'] for row in open_dataset({'name': 'chinese'}).source('train')]
    words = WordSettings(segment='chinese')
    tokens.prepare_tokens(kind, words, texts, 400, 1, epath.Path(tmp_path))
    known = tokens.read_tokens(kind, words, epath.Path(tmp_path))
    ids = known.ids(texts[0])
    assert 0 < min(ids) and max(ids) < known.size == len(known.names)
    if kind != 'bpe':  # a byte pair may be part of a character
        assert known.read(ids) == [each if each in known.names else '[unknown]' for each in known.pieces(texts[0])]
        text = unicodedata.normalize('NFKC', texts[0])  # full-width marks are plain ones
        assert all(each in text for each in known.read(ids) if each != '[unknown]')
    assert known.pieces('') == [] and known.ids('ꙮ') != []


def test_a_vocabulary_keeps_the_commonest_and_drops_the_rare(tmp_path):
    texts = ['a b b c c c', 'c d e e']
    for most, least, kept in ((3, 1, ['c', 'b', 'e']), (9, 2, ['c', 'b', 'e']), (9, 3, ['c'])):
        tokens.prepare_tokens('words', WordSettings(), texts, most, least, epath.Path(tmp_path))
        known = tokens.read_tokens('words', WordSettings(), epath.Path(tmp_path))
        assert known.names[4:] == kept and known.ids('c z') == [4, tokens.UNKNOWN]


KNOWN = tokens.Tokens(100, str.split, lambda text: [], [str(number) for number in range(100)])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(4, 99), min_size=1, max_size=20),
    st.none() | st.lists(st.integers(4, 99), min_size=1, max_size=20),
    st.integers(5, 30), st.booleans(), st.sampled_from(['end', 'start']), st.sampled_from(['left', 'right']),
)  # fmt: skip
def test_a_row_holds_what_fits_and_says_how_much(first, second, length, framed, cut, padding):
    row = frame_ids(KNOWN, Frame(length, framed, cut, padding), first, second)
    there = int(row['length'])
    assert row['tokens'].shape == row['types'].shape == (length,) and 0 < there <= length
    real = row['tokens'][:there] if padding == 'right' else row['tokens'][length - there :]
    assert (real != 0).all() and np.count_nonzero(row['tokens']) == there
    special = (2 if second is None else 3) if framed else (0 if second is None else 1)
    assert there == min(length, len(first) + len(second or []) + special)
    text = [each for each in real if each > 3]
    if len(first) + len(second or []) + special <= length:
        assert text == first + (second or [])
    elif second is None:
        assert text == (first[: len(text)] if cut == 'end' else first[-len(text) :])
    assert row['types'].sum() == (0 if second is None else np.flatnonzero(real == tokens.END)[0] * -1 + there - 1)
    if framed:
        assert real[0] == tokens.BEGIN and real[-1] == tokens.END


def test_of_two_texts_the_longer_loses_first_and_none_where_it_must_not():
    row = frame_ids(KNOWN, Frame(9, True), [10] * 8, [20] * 2)
    assert row['tokens'].tolist() == [2, 10, 10, 10, 10, 3, 20, 20, 3]
    assert row['types'].tolist() == [0] * 6 + [1] * 3
    with pytest.raises(UserError, match='12 tokens, the model reads 9 .config.task.length=9'):
        frame_ids(KNOWN, Frame(9, cut='refuse'), [5] * 12)


@pytest.mark.parametrize('special', [('[PAD]', '[UNK]', '[CLS]', '[SEP]'), ('<pad>', '<unk>', '<s>', '</s>')])
def test_two_texts_are_framed_as_their_encoder_was_trained(special):
    """BERT: [CLS] a [SEP] c [SEP]; RoBERTa: <s> a </s></s> c </s>."""
    vocabulary = {name: number for number, name in enumerate((*special, 'a', 'b'))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    known = tokens.pretrained_tokens(tokenizer, 'x')
    row = frame_ids(known, Frame(9, True), known.ids('a b'), known.ids('c'))
    _, unknown, begin, end = special
    between = [end] * (1 if end == '[SEP]' else 2)
    assert known.read(row['tokens']) == [begin, 'a', 'b', *between, unknown, end]
    assert row['length'] == 6 + len(between) - 1 and row['types'].sum() == 2
    with pytest.raises(UserError, match='is not of a text encoder'):
        tokens.pretrained_tokens(Tokenizer(models.WordLevel({'a': 0}, unk_token='a')), 'x')


@pytest.mark.parametrize(('text', 'words'), [
    ('हिन्दी भाषा है।', ['हिन्दी', 'भाषा', 'है', '।']),
    ('สวัสดีครับ', ['สวัสดีครับ']),
    ('தமிழ் மொழி', ['தமிழ்', 'மொழி']),
    ('שָׁלוֹם עולם', ['שָׁלוֹם', 'עולם']),
    ('cafe\u0301, ok', ['cafe\u0301', ',', 'ok']),
    ("l'e\u0301te\u0301 d’où", ["l'e\u0301te\u0301", 'd’où']),
    ('می\u200cخواهم', ['می\u200cخواهم']),
])  # fmt: skip
def test_marks_that_combine_with_letters_stay_in_their_words(text, words):
    assert make_words(WordSettings(clean=()))(text) == words


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=30))
def test_no_character_but_blanks_is_lost_between_words(text):
    from research.data.text.word_segmentation import words_of

    assert ''.join(words_of(text)) == ''.join(each for each in text if not each.isspace())


def test_marks_belong_to_words_when_whole_words_are_hidden():
    from research.data.text.words import is_letter

    assert all(is_letter(each, True) for each in 'हिन्दी') and not is_letter('।', True)
