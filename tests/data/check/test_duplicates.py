"""Near copies: similarity against sets in plain Python, and that planted copies are found and others not."""

import io
import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_sample_image

from research.data.check.duplicates import exact_matches, near_pictures, near_texts, similarity, small_picture


def plain_similarity(left: str, right: str) -> float:
    """Jaccard similarity of the sets of 5-character runs."""
    sets = []
    for text in (left, right):
        text = ' '.join(text.lower().split())
        text = text + '\0' * (5 - len(text))
        sets.append({text[start : start + 5] for start in range(len(text) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@settings(max_examples=50, deadline=None)
@given(st.text('abc \tÀ😀', max_size=30), st.text('abc \tÀ😀', max_size=30))
def test_similarity_is_that_of_sets(left, right):
    assert similarity(left, right) == plain_similarity(left, right)


def test_planted_near_texts_are_found_and_no_others():
    words = random.Random(0)
    known = [
        ' '.join(words.choices('alpha beta gamma delta epsilon zeta eta theta iota'.split(), k=25))
        for _ in range(300)
    ]
    texts = [
        ' '.join(words.choices('kappa lambda mu nu xi omicron pi rho sigma tau'.split(), k=25))
        for _ in range(300)
    ]
    texts[7] = known[100].replace(' ', '  ').upper() + '!'
    texts[9] = known[200].replace('alpha', 'alpho', 1)
    assert near_texts(texts, known) == {7: 100, 9: 200}
    assert near_texts(texts, known, skip=[7]) == {9: 200}
    assert near_texts(['', ' '], ['', 'a']) == {}


def test_pictures_made_smaller_or_of_less_quality_look_the_same():
    photo = Image.fromarray(load_sample_image('china.jpg'))
    parts = [photo.crop((x, y, x + 120, y + 90)) for x in range(0, 480, 120) for y in range(0, 360, 90)]
    worse = io.BytesIO()
    parts[3].save(worse, 'JPEG', quality=20)
    changed = [
        np.asarray(Image.open(worse)),
        np.asarray(parts[8].resize((40, 30))),
        np.clip(np.asarray(parts[14], np.float32) * 0.8 + 10, 0, 255) / 255,
        np.asarray(parts[5])[:, ::-1],  # mirrored: another picture
        np.zeros((9, 9), np.uint8),
    ]
    known = [small_picture(np.asarray(part)) for part in parts]
    assert near_pictures([small_picture(image) for image in changed], known) == {0: 3, 1: 8, 2: 14}
    assert near_pictures([], known) == near_pictures(known, []) == {}


def test_exact_matches_name_the_first():
    assert exact_matches([b'a', b'b', b'c'], [b'c', b'a', b'a']) == {0: 1, 2: 0}
