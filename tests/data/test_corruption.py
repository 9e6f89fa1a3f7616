"""Hidden tokens: shares and lengths as published, whole words, and texts that come back from their parts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.text.corpus import character_tokenizer, encode_text, train_tokenizer
from research.data.text.corruption import (
    composition,
    corrupt_spans,
    fill_spans,
    generator_of,
    mask_tokens,
    span_sizes,
    spans,
)
from research.data.text.words import Words

MASK, ORDINARY = 1, np.arange(2, 50)


def mask(tokens, rng, count=15, groups=None):
    groups = np.arange(len(tokens)) if groups is None else groups
    return mask_tokens(tokens, groups, count, MASK, ORDINARY, (0.8, 0.1), rng)


def test_chosen_tokens_are_masked_replaced_or_kept_as_published():
    rng, fates, places = np.random.default_rng(0), [], np.zeros(100)
    for _ in range(400):
        tokens = rng.integers(2, 50, 100)
        hidden, positions, targets = mask(tokens, rng)
        assert len(positions) == 15 and np.all(np.diff(positions) > 0)
        np.testing.assert_array_equal(targets, tokens[positions])
        others = np.delete(np.arange(100), positions)
        np.testing.assert_array_equal(hidden[others], tokens[others])
        shown = hidden[positions]
        fates += np.select([shown == MASK, shown == targets], [0, 1], 2).tolist()
        places[positions] += 1
    shares = np.bincount(fates) / len(fates)
    # a random token is the same as before once in 48 times
    np.testing.assert_allclose(shares, [0.8, 0.1 + 0.1 / 48, 0.1 - 0.1 / 48], atol=0.02)
    assert 30 < places.min() and places.max() < 95  # everywhere alike: 60 on average, deviation 7


def test_masks_are_dynamic_by_the_generator_and_fixed_by_the_row():
    tokens = np.arange(2, 42)
    fixed = [mask(tokens, generator_of(tokens)) for _ in range(2)]
    np.testing.assert_array_equal(fixed[0].tokens, fixed[1].tokens)
    assert generator_of(tokens).random() != generator_of(tokens[::-1]).random()
    assert generator_of(tokens.astype(np.int64)).random() == generator_of(tokens.astype(np.uint16)).random()
    first, second = (mask(tokens, np.random.default_rng([0, epoch, 3])) for epoch in (0, 1))
    assert first.positions.tolist() != second.positions.tolist()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_whole_words_are_hidden_whole(sizes, count, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    groups = np.append(groups, -1)
    tokens = np.full(len(groups), 7)
    chosen = mask(tokens, np.random.default_rng(seed), count, groups).positions
    assert len(chosen) <= count and len(groups) - 1 not in chosen
    for group in set(groups[chosen].tolist()):
        assert np.isin(np.flatnonzero(groups == group), chosen).all()
    if min(sizes) <= count:
        assert len(chosen)


def test_words_of_both_tokenizers():
    texts = ['the cat_7 sat, the caté 猫在睡觉。'] * 5
    for tokenizer in (train_tokenizer(texts, 265), character_tokenizer(texts, 18)):
        words, text = Words(tokenizer), 'the cat_7 sat, caté 猫在。'
        numbers = words(np.array(encode_text(tokenizer, text)))
        pieces = [
            tokenizer.decode(np.array(encode_text(tokenizer, text))[numbers == number].tolist())
            for number in range(numbers.max() + 1)
        ]
        assert ''.join(pieces) == text
        joined = [piece for piece in (each.strip() for each in pieces) if piece]
        assert joined == ['the', 'cat_7', 'sat', ',', 'caté', '猫', '在', '。'], joined
        assert words(np.array([0]))[0] == -1


@given(
    st.integers(2, 200), st.floats(0.02, 0.9), st.floats(1.0, 8.0), st.integers(0, 10**6)
)
@settings(max_examples=100, deadline=None)
def test_text_comes_back_from_source_and_target(length, density, mean, seed):
    rng = np.random.default_rng(seed)
    hidden_count, count = span_sizes(length, density, mean)
    end, sentinels = 0, np.arange(1, count + 2)
    tokens = rng.integers(1000, 2000, length)
    hidden = spans(length, hidden_count, count, rng)
    source, target = corrupt_spans(tokens, hidden, sentinels, end)
    assert len(source) == length - hidden_count + count + 1 and source[-1] == end
    assert len(target) == hidden_count + count + 2 and target[-2:].tolist() == [count + 1, end]
    assert [token for token in source if token <= count][:-1] == list(range(1, count + 1))
    assert fill_spans(source.tolist(), target.tolist(), sentinels.tolist(), end) == tokens.tolist()
    assert fill_spans(source.tolist(), [end], sentinels.tolist(), end) == tokens[~hidden].tolist()


def test_density_and_lengths_of_spans():
    assert span_sizes(512, 0.15, 3.0) == (77, 26)
    rng, lengths, share = np.random.default_rng(1), [], np.zeros(512)
    for _ in range(200):
        hidden = spans(512, 77, 26, rng)
        assert hidden.sum() == 77 and not hidden[0] and hidden[-1]
        edges = np.flatnonzero(np.diff(np.concatenate([[0], hidden.astype(int), [0]])))
        lengths += (edges[1::2] - edges[::2]).tolist()
        share += hidden
    assert len(lengths) == 200 * 26 and np.mean(lengths) == pytest.approx(77 / 26)
    assert np.mean(np.array(lengths) == 1) == pytest.approx(25 / 76, abs=0.03)  # of compositions of 77 in 26
    assert share[50:450].mean() / 200 == pytest.approx(0.15, abs=0.01)


def test_compositions_are_drawn_evenly():
    rng = np.random.default_rng(2)
    drawn = [tuple(composition(5, 3, rng).tolist()) for _ in range(3000)]
    counts = {each: drawn.count(each) for each in set(drawn)}
    assert len(counts) == 6 and min(counts.values()) > 400  # (1,1,3) ... of 4 choose 2, 500 on average
    assert composition(7, 1, rng).tolist() == [7]


def test_the_example_of_the_paper():
    words = 'Thank you for inviting me to your party last week .'.split()
    ids = {word: 10 + number for number, word in enumerate(words)}
    names = {**{value: key for key, value in ids.items()}, 1: '<X>', 2: '<Y>', 3: '<Z>', 0: '</s>'}
    hidden = np.isin(words, ['for', 'inviting', 'last'])
    source, target = corrupt_spans(np.array([ids[word] for word in words]), hidden, np.array([1, 2, 3]), 0)
    assert ' '.join(names[token] for token in source.tolist()) == 'Thank you <X> me to your party <Y> week . </s>'
    assert ' '.join(names[token] for token in target.tolist()) == '<X> for inviting <Y> last <Z> </s>'
