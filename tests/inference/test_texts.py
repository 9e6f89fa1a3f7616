"""Text in pieces is the text as a whole, for every kind of tokenizer, and stop strings do not depend on the pieces."""

import pytest
from hypothesis import given, settings, strategies
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from research.data.text.corpus import END, character_tokenizer, train_tokenizer
from research.inference.texts import Texts

SENTENCES = ['the quick brown fox', '数据集的测试 数据集', 'naïve café 🎉🎉 👩‍👩‍👧', "don't stop\n\tme", 'the fox'] * 4


def byte_level() -> Tokenizer:
    return train_tokenizer(SENTENCES, 300, ('<mark>',))


def characters() -> Tokenizer:
    return character_tokenizer(SENTENCES, 30)


def sentence_pieces() -> Tokenizer:
    """A tokenizer with marks of spaces and single bytes, as Llama's."""
    names = ['<s>', '</s>', *(f'<0x{byte:02X}>' for byte in range(256)), '\u2581the', '\u2581', 'fox', '据', '🎉', "'t"]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)]
    )
    tokenizer.add_special_tokens(['<s>', '</s>'])
    return tokenizer


def word_pieces() -> Tokenizer:
    names = ['[UNK]', '[SEP]', 'the', 'fox', '##es', '.', "'", 't', 'do', "n't", ',', '!']
    tokenizer = Tokenizer(models.WordPiece({name: index for index, name in enumerate(names)}, unk_token='[UNK]'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(['[SEP]'])
    return tokenizer


def metaspace() -> Tokenizer:
    names = ['</s>', '\u2581a', 'b', '\u2581', 'c\u2581']
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token='b'))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(['</s>'])
    return tokenizer


MADE = {make.__name__: make() for make in (byte_level, characters, sentence_pieces, word_pieces, metaspace)}
TEXTS = {name: Texts(tokenizer) for name, tokenizer in MADE.items()}


@pytest.mark.parametrize('name', MADE)
@settings(max_examples=150, deadline=None)
@given(data=strategies.data())
def test_pieces_are_the_whole_text(name, data):
    tokenizer, texts = MADE[name], TEXTS[name]
    ids = strategies.integers(0, tokenizer.get_vocab_size() + 2)  # the embedding may have more rows than the tokenizer
    tokens = data.draw(strategies.lists(ids, max_size=30))
    stream = texts.stream()
    pieces = [stream.push(token) for token in tokens]
    whole = tokenizer.decode(tokens, skip_special_tokens=True)
    assert ''.join(pieces) + stream.finish() == whole == texts.decode(tokens)
    if '\ufffd' not in whole:
        assert not any('\ufffd' in piece for piece in pieces)


@settings(max_examples=60, deadline=None)
@given(text=strategies.text(max_size=20))
def test_texts_arrive_character_by_character_and_without_loss(text):
    tokenizer, stream = MADE['byte_level'], TEXTS['byte_level'].stream()
    seen = ''
    for token in tokenizer.encode(text, add_special_tokens=False).ids:
        seen += stream.push(token)
        assert text.startswith(seen)  # so no piece has a half character
    assert seen == text and stream.finish() == ''


def test_a_character_waits_for_its_last_byte():
    tokenizer, texts = MADE['byte_level'], TEXTS['byte_level']
    tokens = tokenizer.encode('€', add_special_tokens=False).ids
    assert len(tokens) == 3
    stream = texts.stream()
    assert [stream.push(token) for token in tokens] == ['', '', '€']
    stream = texts.stream()
    assert [stream.push(token) for token in tokens[:2]] == ['', ''] and stream.finish() == '\ufffd'
    assert texts.token_bytes(tokens[0]) == '€'.encode()[:1] and texts.token_text(tokens[0]) == '\ufffd'


def test_special_tokens_are_hidden_unless_they_belong_to_the_text():
    tokenizer = MADE['byte_level']
    tokens = [*tokenizer.encode('fox', add_special_tokens=False).ids, tokenizer.token_to_id('<mark>'), 0]
    streams = [Texts(tokenizer).stream(), Texts(tokenizer, hidden=(0,)).stream()]
    assert [''.join(map(stream.push, tokens)) + stream.finish() for stream in streams] == ['fox', 'fox<mark>']
    assert TEXTS['byte_level'].token_text(0) == END
    assert TEXTS['sentence_pieces'].token_bytes(2 + 0xE6) == b'\xe6'
    assert TEXTS['sentence_pieces'].token_text(258) == ' the'


def chunks(text, sizes):
    while text:
        size = sizes.pop() if sizes else 1
        yield text[:size]
        text = text[size:]


@settings(max_examples=300, deadline=None)
@given(
    text=strategies.text('ab\u4e2d', max_size=14),
    stops=strategies.lists(strategies.text('ab\u4e2d', min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=strategies.lists(strategies.integers(1, 4), max_size=8),
)
def test_stop_strings_do_not_depend_on_the_pieces(text, stops, sizes):
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    if ends:  # the reference: read character by character
        first = text[: ends[0]]
        expected = first[: len(first) - max(len(stop) for stop in stops if first.endswith(stop))]
    else:
        expected = text
    stream = TEXTS['characters'].stream(stops)
    shown = ''
    for piece in chunks(text, list(sizes)):
        shown += stream.release(piece) if not stream.stopped else ''
        assert expected.startswith(shown)  # nothing is shown that is taken back
    shown += stream.finish()
    assert shown == expected and stream.stopped == bool(ends)


def test_a_stop_string_split_over_tokens_is_never_shown():
    tokenizer, texts = MADE['byte_level'], TEXTS['byte_level']
    stream = texts.stream(['\n\n', 'fox!'])
    tokens = tokenizer.encode('the fo', add_special_tokens=False).ids + tokenizer.encode('x').ids
    shown = ''.join(map(stream.push, tokens))
    assert shown == 'the ' and not stream.stopped  # it may become 'fox!'
    shown += stream.push(tokenizer.encode('?').ids[0])
    assert shown == 'the fox?'
    for token in tokenizer.encode(' fox!').ids:
        shown += stream.push(token)
    assert shown == 'the fox? ' and stream.stopped
    assert stream.push(tokens[0]) == '' and stream.finish() == ''
