"""Tokens with their place in the text, and windows of a context: every answer can be cut out unchanged."""

import json
import pathlib

import numpy as np
import pytest
from etils import epath
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from research.data.readers.rows import in_memory
from research.data.text import pieces
from research.data.text.answers import with_references
from research.data.text.question_windows import (
    CONTEXT,
    FREQUENT,
    QUESTION,
    RARE,
    SIMILAR,
    Windows,
    WindowSettings,
    make_buckets,
    plan_training,
)
from research.errors import SettingError, UserError

BERT = pathlib.Path(__file__).parent.parent / 'interop' / 'fixtures' / 'bert'
CONTEXTS = {
    'english': ("On 7 February 2016, Levi's Stadium (Santa Clara) saw a 24–10 win.", 'Santa Clara'),
    'chinese': ('王小明在北京大学学习了4年，后来去了上海。', '北京大学'),
    'emoji': ('She sent 👨‍👩‍👧 and 👍🏽 from 🇩🇪 today', '👍🏽 from 🇩🇪'),
    'marks': ('The cafe\u0301 of Ame\u0301lie opened in Ko\u0308ln.', 'Ame\u0301lie'),
    'lines': ('First line.\r\nThe mill\r\nburnt down.\r\n', 'mill\r\nburnt'),
    'beyond': ('𠮷野家 is written with 𠮷, not 吉', '𠮷'),
    'start': ('Answer first', 'Answer'),
    'end': ('The last word is answer', 'answer'),
}


def words_of(folder, texts, count=1):
    pieces.prepare_words(texts, 1000, count, epath.Path(folder))
    return pieces.read_words(epath.Path(folder))


def bert_of(folder):
    from research.interop.vocabulary import read_tokenizer

    folder.joinpath(pieces.TOKENIZER).write_text(read_tokenizer(BERT).to_str(), encoding='utf-8')
    return pieces.read_pretrained(epath.Path(folder), 'bert')


def bytes_of(folder):
    """A byte-level tokenizer, as of RoBERTa: characters outside ASCII are several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    special = ['<s>', '<pad>', '</s>', '<unk>']
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(['The mill is the mill of the stadium'] * 9, trainer)
    folder.joinpath(pieces.TOKENIZER).write_text(tokenizer.to_str(), encoding='utf-8')
    return pieces.read_pretrained(epath.Path(folder), 'roberta')


def raw_of(context, answer, question='Where is it?'):
    row = {'question': question, 'context': context, 'answer': answer, 'answer_start': None}
    return with_references(row, 'here')


@pytest.mark.parametrize('reader', ['words', 'bert', 'bytes'])
@pytest.mark.parametrize('name', CONTEXTS)
def test_an_encoded_answer_is_cut_out_unchanged(name, reader, tmp_path):
    """From the text to positions of tokens, and back to code points."""
    context, answer = CONTEXTS[name]
    makers = {'words': lambda folder: words_of(folder, [context]), 'bert': bert_of, 'bytes': bytes_of}
    reader = makers[reader](tmp_path)
    windows = Windows(reader, WindowSettings(128, 6, 8))
    raw = raw_of(context, answer)
    row = windows.encode(raw)
    span = np.array([[row['start'], row['end']]])
    ((start, stop),) = windows.bounds(raw, 0, span)
    assert context[start:stop] == answer and start == raw['starts'][0]


def test_every_token_of_the_text_is_where_its_offset_says(tmp_path):
    text = ' '.join(context for context, _ in CONTEXTS.values())
    read = words_of(tmp_path, [text]).read(text)
    assert [text[start:stop] for start, stop in read.offsets] and len(read.ids) == len(read.names) == len(read.shapes)
    covered = ''.join(text[start:stop] for start, stop in read.offsets)
    assert covered == ''.join(text.split())  # only white space is left out
    assert '👨‍👩‍👧' in read.names and '🇩🇪' in read.names and '京' in read.names


def test_windows_cover_a_long_context_and_share_their_overlap(tmp_path):
    context = ' '.join(f'w{number}' for number in range(50))
    windows = Windows(words_of(tmp_path, [context]), WindowSettings(20, 4, 7))
    raw = raw_of(context, 'w21')
    parts = windows.split(raw)
    seen, rows = set(), [windows.encode(part) for part in parts]
    for number, (row, place) in enumerate(zip(rows, windows.places(raw), strict=True)):
        names = windows.reader.tokens.read(row['tokens'])
        assert names[0] == '[begin]' and names[place.before - 1] == '[end]' and names[-1] == '[end]'
        seen |= {*names[place.before : -1]}
        answer = row['start']
        assert (windows.describe(row)['answer'] == 'w21') == ('w21' in names[place.before :])
        if answer:
            ((start, stop),) = windows.bounds(raw, number, np.array([[row['start'], row['end']]]))
            assert context[start:stop] == 'w21'
    assert seen == {f'w{number}' for number in range(50)}
    assert 1 < sum(row['start'] > 0 for row in rows) < len(rows)


def test_an_answer_at_the_edge_of_a_window_is_in_it_and_one_across_the_edge_is_not(tmp_path):
    context = ' '.join(f'w{number}' for number in range(30))
    windows = Windows(words_of(tmp_path, [context]), WindowSettings(20, 4, 10))
    raw = raw_of(context, 'w0', 'w0')
    first, second = windows.places(raw)[:2]
    last = first.first + first.size - 1
    edge = windows.encode(raw_of(context, f'w{last}', 'w0'))
    assert edge['end'] == first.before + first.size - 1 == edge['length'] - 2
    across = raw_of(context, f'w{last} w{last + 1}', 'w0')
    assert windows.encode(across)['start'] == 0 == windows.encode(across)['end']
    assert windows.encode({**across, 'window': 1})['start'] == last - second.first + second.before
    assert windows.encode({**raw_of(context, f'w{second.first}', 'w0'), 'window': 1})['start'] == second.before


def test_types_mark_what_the_question_has_too(tmp_path):
    reader = words_of(tmp_path, ['the the the mill builds'])
    windows = Windows(reader, WindowSettings(20, 8, 4))
    row = windows.encode({'question': 'The builder of Xanten?', 'context': 'the mill builds Xanten'})
    place = windows.places({'question': 'The builder of Xanten?', 'context': 'x'})[0]
    assert row['types'][: place.before].tolist() == [QUESTION] * place.before
    assert row['types'][place.before : place.before + 4].tolist() == [FREQUENT, CONTEXT, CONTEXT, RARE]
    rare = words_of(tmp_path, [' '.join(f'x{number}' for number in range(200))])  # 'builds' is unknown, so rare
    row = Windows(rare, WindowSettings(20, 8, 4)).encode({'question': 'The builder?', 'context': 'he builds'})
    assert SIMILAR in row['types']
    kinds = [pieces.SHAPES[pieces.shape_of(word)] for word in ('a', 'Ada', 'NATO', '7', '1999', 'B2', '京', '–')]
    assert kinds == ['lower', 'Capital', 'CAPITALS', 'number', 'year', 'mixed with digits', 'without case', 'symbol']


def test_of_several_references_one_is_drawn_in_training(tmp_path):
    context = 'one two three'
    windows = Windows(words_of(tmp_path, [context]), WindowSettings(16, 4, 4))
    answers = [{'text': text, 'answer_start': context.index(text)} for text in ('three', 'one', 'one')]
    raw = with_references({'question': 'q', 'context': context, 'answers': answers}, 'here')
    before = windows.places(raw)[0].before
    assert windows.encode(raw)['start'] == before  # the commonest
    drawn = {int(windows.encode(raw, np.random.default_rng(seed))['start']) for seed in range(20)}
    assert drawn == {before, before + 2}


def test_training_windows_without_the_answer_are_kept_or_left_out_and_counted(tmp_path):
    context = ' '.join(f'w{number}' for number in range(30))
    windows = Windows(words_of(tmp_path, [context]), WindowSettings(20, 4, 10))
    rows = in_memory([raw_of(context, 'w0', 'w0'), raw_of(context, '', 'w0 w1 w2 w3 w4')], 'rows')
    count = len(windows.split(rows[0]))
    kept, left = plan_training(rows, windows, True), plan_training(rows, windows, False)
    assert (len(kept.rows), len(left.rows)) == (2 * count, 1 + count)
    expected = {'questions': 2, 'windows': 2 * count, 'without': count - 1, 'unanswerable': 1, 'cut': 1, 'moved': 0}
    assert kept.counts == left.counts == expected
    assert [windows.encode(row)['length'] for row in kept.rows] == kept.lengths.tolist()
    long = in_memory([raw_of(context, ' '.join(f'w{number}' for number in range(25)))], 'rows')
    with pytest.raises(UserError, match='no window of the training split has an answer'):
        plan_training(long, windows, False)


def test_a_bucket_changes_the_padding_only(tmp_path):
    context = ' '.join(f'w{number}' for number in range(9))
    reader, raw = words_of(tmp_path, [context]), raw_of(context, 'w3', 'w0')
    plain = Windows(reader, WindowSettings(40, 8, 8)).encode(raw)
    settings = WindowSettings(40, 8, 8, (16, 24))
    buckets = make_buckets(settings, reader, lambda split: [plain['length']])
    row = Windows(reader, settings).encode(raw)
    padded = buckets.pad(row, buckets.bucket(row))
    assert buckets.of('train').tolist() == [buckets.bucket(row)] == [0]
    for name in ('tokens', 'types', 'shapes'):
        assert padded[name].shape == (16,) and np.array_equal(padded[name], plain[name][:16])
    assert make_buckets(WindowSettings(40, 8, 8), reader) is None


@pytest.mark.parametrize(('raw', 'message'), [
    ({'context': 'x'}, "no 'question'"), ({'question': 'x', 'context': ''}, "'context' is empty"),
    ({'question': 'x', 'context': '\r\n '}, "'context' is empty"), ({'question': 7, 'context': 'x'}, 'not a text'),
    ({'question': 'x', 'context': 'a\udc00'}, 'half of a character at position 1'),
    ({'question': 'x', 'context': '\u200b'}, "'context' has no word"),
    ({'question': 'x', 'context': 'y ' * 600_000}, 'at most 1,000,000'),
])  # fmt: skip
def test_a_bad_request_is_refused(raw, message, tmp_path):
    with pytest.raises(UserError, match=message):
        Windows(bert_of(tmp_path), WindowSettings(20, 4, 4)).split(raw)


def test_a_very_long_context_and_question_are_read(tmp_path):
    windows = Windows(words_of(tmp_path, ['a b']), WindowSettings(40, 8, 28))
    raw = {'question': 'why ' * 5000, 'context': 'word ' * 20_000}
    parts = windows.split(raw)
    assert len(parts) > 500 and all(windows.encode(part)['tokens'].shape == (40,) for part in parts[::100])


def test_impossible_sizes_are_refused():
    with pytest.raises(SettingError, match='stride must be at most length - question_length - 4 = 12, got 13'):
        WindowSettings(20, 4, 13).check()
    for buckets in ((30, 20), (20,)):
        with pytest.raises(SettingError, match='buckets must ascend'):
            WindowSettings(20, 4, 4, buckets).check()
    assert json.dumps(WindowSettings(20, 4, 12, (8, 16)).check())
