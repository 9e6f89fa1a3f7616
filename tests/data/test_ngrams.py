"""N-grams of words and of characters inside them: which there are, their numbers and their ratios."""

import numpy as np
import pytest
from etils import epath

from research.data.text import ngrams
from research.data.text.ngrams import GramSettings
from research.errors import UserError, unpack


def test_grams_are_looked_up_or_hashed(tmp_path):
    folder, pairs = epath.Path(tmp_path), GramSettings(order=2)
    ngrams.prepare_grams([['a', 'b', 'a', 'b'], ['b']], pairs, 3, 1, folder)
    known = ngrams.read_grams(pairs, folder)
    assert list(known.numbers) == ['b', 'a', 'a\x1fb'] and known.size == 4
    assert ngrams.features(known, ['a', 'b', 'x'], 4).tolist() == [2, 1, 3, 0, 0, 0, 0, 0]
    assert ngrams.features(known, ['b', 'b', 'a'], 4, once=True).tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    hashed = ngrams.read_grams(pairs._replace(buckets=7), folder)
    row = ngrams.features(hashed, ['a', 'b', 'x'], 4)
    assert hashed.size == 8 and np.count_nonzero(row) == 5 and row.max() <= 7


def test_log_count_ratios_are_those_of_the_paper():
    """Equation 2 of Wang and Manning, count by count."""
    rows = [np.array(row) for row in ([1, 2, 0], [1, 1, 3], [3, 0, 0])]
    found = ngrams.log_count_ratios(rows, np.array([[1.0], [1.0], [0.0]]), 4)
    p, q = np.array([3, 2, 2]), np.array([1, 1, 2])
    np.testing.assert_allclose(found[1:, 0], np.log((p / p.sum()) / (q / q.sum())), rtol=1e-6)
    assert found[0, 0] == 0


def test_subwords_are_those_of_the_paper():
    """The example of section 3.2 of Bojanowski et al. 2017: "where" by three characters, and the word itself."""
    found = ngrams.grams_of(['where'], GramSettings(order=1, subwords=(3, 3)))
    assert found == ['where', *('\x1e' + gram for gram in ('<wh', 'whe', 'her', 'ere', 're>'))]
    longer = ngrams.grams_of(['a', 'bc'], GramSettings(order=2, subwords=(2, 9)))
    assert [gram.removeprefix('\x1e') for gram in longer[3:]] == ['<a', 'a>', '<b', 'bc', 'c>', '<bc', 'bc>']


def test_subwords_beyond_their_room_are_cut_off(tmp_path):
    settings = GramSettings(order=1, subwords=(1, 9), subword_room=2)
    folder = epath.Path(tmp_path)
    ngrams.prepare_grams([['abcdef']], settings, 100, 1, folder)
    row = ngrams.features(ngrams.read_grams(settings, folder), ['abcdef'], 3)
    assert row.shape == (9,) and np.all(row > 0)


@pytest.mark.parametrize('wrong', [{'order': 0}, {'subwords': (3,)}, {'subwords': (4, 3)}, {'subword_room': 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        unpack(GramSettings, wrong, 'model').check()
