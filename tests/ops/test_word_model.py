"""The language model of words: hand-made values, and sums to one."""

import itertools
import math

import numpy as np

from research.ops.word_model import UNKNOWN, count_words


def test_unigrams_are_interpolated_with_a_uniform_distribution():
    words = count_words(['a a b'], 1)
    # Three tokens of two types; below them 1 / 3 for each of a, b and the unknown word.
    np.testing.assert_allclose(words.probability('a', ()), (2 + 2 / 3) / 5)
    np.testing.assert_allclose(words.probability('c', ()), (2 / 3) / 5)


def test_bigrams_are_interpolated_with_unigrams():
    words = count_words(['a a b'], 2)
    unigram = (1 + 2 / 3) / 5  # of b
    np.testing.assert_allclose(words.probability('b', ('a',)), (1 + 2 * unigram) / 4)  # after a: a once, b once
    np.testing.assert_allclose(words.probability('b', ()), unigram / 2)  # a text never started with b
    np.testing.assert_allclose(words.probability('b', ('b',)), unigram)  # nothing followed b
    np.testing.assert_allclose(words.score(('a', 'b')), math.log(words.probability('b', ('a',))))


def test_probabilities_sum_to_one_after_every_history():
    words = count_words(['one two three', 'two two one', 'three'], 3)
    known = ['one', 'two', 'three', UNKNOWN]
    for size in range(3):
        for history in itertools.product([*known, 'new'], repeat=size):
            np.testing.assert_allclose(sum(words.probability(word, history) for word in known), 1.0)
    assert words.probability('new', ('one',)) == words.probability(UNKNOWN, ('one',))


def test_no_texts_give_no_preference():
    assert count_words([], 2).probability('a', ()) == 1.0
