"""Letters as bases and k-mers, FASTA files, and splits that keep copies of a sequence together."""

import collections
import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.data.dataset import open_dataset
from research.data.readers.rows import Rows
from research.data.sequence import genes
from research.data.splitting import stratified_parts
from research.errors import UserError


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet='ACGT', min_size=1, max_size=30), st.integers(1, 4))
def test_letters_and_kmers_of_plain_bases(letters, k):
    np.testing.assert_array_equal(genes.one_hot(letters), [[letter == base for base in 'ACGT'] for letter in letters])
    numbers = genes.kmers(letters, k)
    if len(letters) >= k:
        digits = ''.join(str('ACGT'.index(letter)) for letter in letters)
        assert numbers.tolist() == [1 + int(digits[i : i + k], 4) for i in range(len(digits) - k + 1)]
    else:
        assert numbers.tolist() == [genes.kmer_count(k) - 1]


def test_letters_that_stand_for_several_bases():
    shares = [[0.5, 0, 0.5, 0], [0.25] * 4, [0, 0, 0, 1], [1 / 3, 0, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(genes.one_hot('RNUD'), shares, rtol=1e-6)
    assert genes.one_hot(''.join(genes.LETTERS)).sum(-1) == pytest.approx(1)
    assert genes.kmers('ACNTT', 2).tolist() == [2, 17, 17, 16]
    assert genes.clean(' ac gt\nu ') == 'ACGTU'
    for bad, message in (('', 'empty'), ('ACJT', "'J' at position 3"), ('ACé', 'position 3')):
        with pytest.raises(UserError, match=message):
            genes.clean(bad)


def test_fasta_files_are_classes(tmp_path):
    (tmp_path / 'gene.fa').write_text('>one first\nACGT\nAC\n\n>two\r\nGG\r\n')
    with gzip.open(tmp_path / 'other.fa.gz', 'wt') as file:
        file.write('>three\nTTTT\n>four\n')
    settings = {'reader': 'fasta', 'train': str(tmp_path / '*.fa*'), 'validation_fraction': 0.0, 'test_fraction': 0.0}
    rows = open_dataset(settings).source('train')
    assert rows[0] == {'name': 'one first', 'sequence': 'ACGTAC', 'label': 'gene'} and rows[1]['sequence'] == 'GG'
    assert rows[2]['label'] == 'other' and rows.where(1).endswith('gene.fa, line 5')
    with pytest.raises(UserError, match="other.fa.gz, line 3: 'four' has no sequence"):
        rows[3]
    named = open_dataset({**settings, 'train': str(tmp_path / 'gene.fa'), 'label_pattern': '^o(.)e'}).source('train')
    assert named[0]['label'] == 'n'
    with pytest.raises(UserError, match="label_pattern finds no label in 'two'"):
        named[1]
    (tmp_path / 'bad.fa').write_text('ACGT\n>one\nAC')
    with pytest.raises(UserError, match="bad.fa: not a FASTA file: its first line must start with '>'"):
        open_dataset({**settings, 'train': str(tmp_path / 'bad.fa')}).source('train')


def test_copies_stay_together_and_classes_keep_their_shares():
    content = [{'sequence': f'{number % 150}', 'label': 'ab'[number % 150 % 3 == 0]} for number in range(200)]
    rows = Rows(len(content), content.__getitem__, str)
    parts = stratified_parts(rows, {'test': 0.2, 'validation': 0.1})
    sets = {split: {row['sequence'] for row in each} for split, each in parts.items()}
    assert sum(map(len, sets.values())) == 150 and sum(map(len, parts.values())) == 200
    counts = collections.Counter(content[int(sequence)]['label'] for sequence in sets['test'])
    assert counts == {'a': 20, 'b': 10}
    turned = Rows(200, content[::-1].__getitem__, str)
    again = stratified_parts(turned, {'test': 0.2, 'validation': 0.1})
    assert {row['sequence'] for row in again['test']} == sets['test']
    assert {row['sequence'] for row in stratified_parts(rows, {'test': 0.2}, 1)['test']} != sets['test']


@pytest.mark.data
def test_published_sets_have_their_published_sizes(data, monkeypatch):
    monkeypatch.setenv('TESSERA_DATA', str(data))
    for name, sizes, length in (
        ('splice', {'N': 1655, 'IE': 768, 'EI': 767}, 60),
        ('promoters', {'+': 53, '-': 53}, 57),
        ('arabidopsis', {'promoter': 1497, 'other': 2879}, 251),
    ):
        parts = [list(open_dataset({'name': name}).source(split)) for split in ('train', 'validation', 'test')]
        assert collections.Counter(row['label'] for part in parts for row in part) == sizes
        sequences = [{row['sequence'] for row in part} for part in parts]
        assert not (sequences[0] & sequences[1] or sequences[0] & sequences[2] or sequences[1] & sequences[2])
        every = set.union(*sequences)
        assert {len(sequence) for sequence in every} == {length} and set(''.join(every)) <= set(genes.LETTERS)
