"""Sequences of nucleotides classified: arrays, errors, k-mers and both models."""

import jax
import numpy as np
import pytest
from etils import epath

from research import api
from research.core.task import Context
from research.errors import UserError


@pytest.fixture
def built(tmp_path):
    def build(**overrides):
        overrides = {name.replace('__', '.'): value for name, value in overrides.items()}
        config = api.read('configs/splice_sites.py:tiny', {'data.examples': '60', **overrides})
        folder = epath.Path(tmp_path / 'prepared')
        api.prepare(config, folder)
        return api.build(config, folder)

    return build


def test_a_row_is_bases_or_kmers_and_its_length(built):
    task = built()
    row = task.encode({'sequence': 'acgN', 'label': 'none'})
    assert row['bases'].shape == (24, 4) and row['length'] == 4 and row['label'] == 1
    np.testing.assert_allclose(row['bases'][:4], [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0.25] * 4])
    assert not row['bases'][4:].any()
    kmers = built(task__kmer='3').encode({'sequence': 'ACGTN'})
    assert kmers['kmers'].tolist() == [7, 28, 65] + [0] * 19 and kmers['length'] == 3


@pytest.mark.parametrize(('raw', 'message'), [
    ({}, "no 'sequence'"),
    ({'sequence': ''}, 'the sequence is empty'),
    ({'sequence': 'ACGJ'}, "'J' at position 4, which is not a base"),
    ({'sequence': 'A' * 25}, r'25 letters, the model reads 24 .config.task.length'),
    ({'sequence': 'A', 'label': 'frist'}, "did you mean 'first'"),
])  # fmt: skip
def test_a_sequence_that_cannot_be_is_named(built, raw, message):
    with pytest.raises(UserError, match=message):
        built().encode(raw)


@pytest.mark.parametrize(
    ('cut', 'kept'), [('end', 'A' * 24), ('start', 'A' * 12 + 'C' * 12), ('both', 'A' * 18 + 'C' * 6)]
)
def test_a_longer_sequence_is_cut_where_it_may_be(built, cut, kept):
    task = built(task__cut=cut)
    np.testing.assert_array_equal(
        task.encode({'sequence': 'A' * 24 + 'C' * 12})['bases'], task.encode({'sequence': kept})['bases']
    )


@pytest.mark.parametrize(('overrides', 'message'), [
    ({'task__kmer': '9'}, 'kmer must be at least zero and at most 8'),
    ({'model__name': 'transfomer'}, "did you mean 'transformer'"),
    ({'data__name': 'slice'}, "did you mean 'splice'"),
    ({'data__examples': '5'}, 'examples must be 30 or more'),
    ({'data__reader': 'fasta', 'data__train': 'nowhere.fa'}, 'config.data'),
])  # fmt: skip
def test_settings_that_cannot_be_are_named(built, overrides, message):
    with pytest.raises(UserError, match=message):
        built(**overrides)


def test_a_transformer_reads_kmers_and_its_errors_are_metrics(built, tmp_path):
    config = api.load_config('configs/splice_sites.py:tiny')
    with config.unlocked():
        config.model = {'name': 'transformer', 'width': 8, 'layers': 1, 'heads': 2}
        config.data.examples = 60
    folder = epath.Path(tmp_path / 'prepared')
    with pytest.raises(UserError, match='a Transformer reads k-mers; use 1 for single letters'):
        api.prepare(api.read(config), folder)
        api.build(api.read(config), folder)
    config.task.kmer = 1
    task = api.build(api.read(config), folder)
    variables = jax.jit(task.init)(jax.random.key(0))
    rows = [task.encode(task.source('test')[number]) for number in range(6)]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    batch |= {'mask': np.ones(6, np.float32), 'index': np.arange(6)}
    sums = jax.jit(task.metric_sums)(variables, batch, Context(jax.random.key(0), 0, False))
    metrics = task.metrics({name: np.asarray(value, np.float64) for name, value in sums.items()})
    recall = metrics['recall_per_class'].value
    assert [metrics[f'error_{name}'].value for name in ('first', 'none', 'second')] == [1 - each for each in recall]
    outputs = task.predict(variables, batch, Context(jax.random.key(0), 0, False))
    answer = task.decode({name: np.asarray(value)[0] for name, value in outputs.items()})
    assert answer['label'] in ('first', 'none', 'second')
