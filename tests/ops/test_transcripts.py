"""Error rates of transcripts, against a plain dynamic program and, where it is installed, jiwer."""

import numpy as np
import pytest

from research.ops.transcripts import corpus_errors, edit_distance, normalize, signature


def slow_distance(first, second):
    table = np.zeros((len(first) + 1, len(second) + 1), int)
    table[:, 0], table[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for i, a in enumerate(first, 1):
        for j, b in enumerate(second, 1):
            table[i, j] = min(table[i - 1, j] + 1, table[i, j - 1] + 1, table[i - 1, j - 1] + (a != b))
    return table[-1, -1]


def random_texts(count=60):
    draw = np.random.default_rng(0)
    return [' '.join(draw.choice(list('abcd'), size=draw.integers(0, 9))) for _ in range(count)]


def test_distances_are_those_of_the_dynamic_program():
    texts = random_texts()
    for first, second in zip(texts, texts[1:], strict=False):
        assert edit_distance(first, second) == slow_distance(first, second)
        assert edit_distance(first.split(), second.split()) == slow_distance(first.split(), second.split())
    assert (edit_distance('', ''), edit_distance('abc', ''), edit_distance('', 'abc')) == (0, 3, 3)
    assert edit_distance('kitten', 'sitting') == 3


def test_errors_are_summed_before_they_are_divided():
    errors = corpus_errors([('a b c d', 'a b c d'), ('e', 'f g')])
    assert (errors.wer, errors.sentence_errors) == (40.0, 50.0)  # a mean of utterances would give 100
    assert errors.cer == pytest.approx(100 * 3 / 8)
    assert corpus_errors([('one two', '')]).wer == 100
    assert corpus_errors([('one', 'a b c')]).wer == 300
    assert corpus_errors([('', 'a')]).word_edits == 1


def test_error_rates_are_those_of_jiwer():
    jiwer = pytest.importorskip('jiwer')
    texts = [text for text in random_texts() if text]
    pairs = list(zip(texts, texts[1:], strict=False))
    errors, (references, answers) = corpus_errors(pairs), zip(*pairs, strict=True)
    np.testing.assert_allclose(errors.wer, 100 * jiwer.wer(list(references), list(answers)))
    np.testing.assert_allclose(errors.cer, 100 * jiwer.cer(list(references), list(answers)))


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('Hello,  World!', 'hello world'),
        ('don\N{RIGHT SINGLE QUOTATION MARK}t', "don't"),
        ("'quoted'", 'quoted'),
        ('twenty-one\n', 'twenty one'),
        ('\N{LATIN SMALL LIGATURE FI}ve \N{DEVANAGARI LETTER KA}\N{DEVANAGARI VOWEL SIGN I}', 'five \u0915\u093f'),
        (' ... ', ''),
    ],
)
def test_transcripts_have_one_form(text, expected):
    assert normalize(text) == expected
    assert normalize(expected) == expected


def test_case_and_punctuation_are_settings():
    assert normalize('Yes, Sir', 'upper') == 'YES SIR'
    assert normalize('Yes,  Sir', 'keep', punctuation=True) == 'Yes, Sir'
    assert signature('upper', False) == 'NFKC, upper case, without punctuation'
