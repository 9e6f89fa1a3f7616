"""Exported programs write the texts that the task writes; the loop over tokens is outside."""

import json
import runpy

import jax
import numpy as np
import pytest
from export_cases import source_of

from research.export import litert, stablehlo
from research.export.folder import write_folder
from research.export.programs import greedy_texts


@pytest.fixture(scope='module')
def source(started, tmp_path_factory):
    planned, state = started('configs/gpt.py')
    return source_of(planned.spec.task, tmp_path_factory.mktemp('run'), planned.config, state.variables)


@pytest.mark.slow
def test_prefill_and_step_write_the_greedy_text(source, tmp_path):
    folder = write_folder(source, 'stablehlo', stablehlo.export, tmp_path / 'out')
    described = json.loads((folder / 'program.json').read_text())
    load, settings = runpy.run_path(str(folder / 'run.py'))['load'], described['text']
    prefill, step, batch = load('prefill'), load('step'), source.batch
    wanted = greedy_texts(source)
    state, written = prefill(batch), []
    for _ in range(settings['max_new_tokens']):
        state = step(state)
        state['token'] = np.argmax(state['logits'], axis=-1).astype(np.int32)
        written.append(state['token'])
    for row, length in enumerate(wanted['length']):
        np.testing.assert_array_equal(np.stack(written, 1)[row, :length], wanted['tokens'][row, :length])


@pytest.mark.slow
def test_litert_writes_the_greedy_text_and_samples_with_a_seed(source, tmp_path):
    pytest.importorskip('ai_edge_litert', reason='the extra export is not installed')
    pytest.importorskip('litert_converter', reason='launch/foreign.txt is not installed')
    folder = write_folder(source, 'litert', litert.export, tmp_path / 'out')
    assert len((folder / 'run.py').read_text().splitlines()) <= 60
    run, wanted = runpy.run_path(str(folder / 'run.py'))['load'](), greedy_texts(source)
    for name, value in run(source.batch).items():
        np.testing.assert_array_equal(value, wanted[name])
    first, again, other = (run(source.batch, seed=seed, temperature=1.0, top_k=20)['tokens'] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_runner_draws_from_the_likeliest_tokens():
    pytest.importorskip('ai_edge_litert', reason='the extra export is not installed')
    from research.export.runners.run_litert_text import choose

    logits, generator = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32)), np.random.default_rng(0)
    drawn = [choose(logits, generator, temperature=1.0) for _ in range(4000)]
    np.testing.assert_allclose(np.bincount(drawn) / 4000, [0.1, 0.4, 0.2, 0.3], atol=0.03)
    assert {choose(logits, generator, temperature=1.0, top_k=2) for _ in range(99)} == {1, 3}
    assert {choose(logits, generator, temperature=1.0, top_p=0.6) for _ in range(99)} == {1, 3}
    assert {choose(logits, generator, temperature=5.0, top_p=0.2) for _ in range(99)} == {1}
    assert choose(logits, generator) == int(jax.numpy.argmax(logits))
