"""The engine: the same request gives the same bits in every company, and nothing compiles after the warm-up."""

import threading

import jax
import numpy as np
import pytest
from contract import plan_of
from etils import epath

from research.core.evaluate import make_evaluator
from research.core.predictions import predictions
from research.core.sharding import batch_sharding
from research.core.state import eval_variables
from research.errors import UserError
from research.inference.engine import Engine
from research.inference.text_requests import Finish, TextRequest

SLOTS = 4
CONFIGS = {'decoder': 'configs/python_lm.py', 'translation': 'configs/multi30k_translation.py'}
FIELDS = {'decoder': 'text', 'translation': 'source'}


class Served:
    """A tiny model with random weights, and its engine after the warm-up."""

    def __init__(self, kind, folder):
        self.planned = plan_of(CONFIGS[kind], epath.Path(folder))
        self.spec, self.task, self.field = self.planned.spec, self.planned.spec.task, FIELDS[kind]
        self.variables = eval_variables(self.spec.init())
        self.engine = self.rebuilt()
        self.engine.warm_up()

    def rebuilt(self):
        return Engine(self.task, self.variables, self.spec.mesh, SLOTS)

    def request(self, text='a man', **settings):
        return TextRequest({self.field: text}, **{'temperature': 1.0, 'top_p': 1.0, 'top_k': 0, **settings})


@pytest.fixture(scope='module', params=CONFIGS)
def served(request, tmp_path_factory):
    return Served(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope='module')
def decoder(tmp_path_factory):
    return Served('decoder', tmp_path_factory.mktemp('decoder'))


def generate(engine, request, *others, late=()):
    """Runs a request after `others`, with `late` ones that come while it grows; returns its pieces."""
    pieces = []
    for other in others:
        engine.submit(other)
    ticket = engine.submit(request, pieces.append)
    engine.step()
    for other in late:
        engine.submit(other)
    engine.finish(ticket)
    engine_idle(engine)
    return pieces


def engine_idle(engine):
    while engine.running or engine.waiting:
        engine.step()
    engine.step()


def joined(pieces, index=0):
    """(tokens, log-probabilities, text, finish) of the pieces of one text."""
    mine = [piece for piece in pieces if piece.index == index]
    assert [piece.finish for piece in mine[:-1]] == [None] * (len(mine) - 1) and mine[-1].finish
    tokens = [token for piece in mine for token in piece.tokens]
    logprobs = [value for piece in mine for value in piece.logprobs]
    return tokens, np.float32(logprobs).tobytes(), ''.join(piece.text for piece in mine), mine[-1].finish


def test_the_same_bits_alone_and_in_company_in_any_slot_and_after_a_restart(served):
    request = served.request('a man', seed=3, index=5, max_tokens=12)
    alone = joined(generate(served.engine, request))
    assert len(alone[0]) > 1
    others = [served.request(text, seed=9, max_tokens=5 + number) for number, text in enumerate(['a dog runs', 'x', 'the'])]
    searching = served.request('x y z', temperature=0.0, repetition_penalty=1.3, top_logprobs=3)
    for before, late in (((), others), (others[:2], ()), (others, (searching,)), ((*others, searching, *others), others)):
        assert joined(generate(served.engine, request, *before, late=late)) == alone
    assert joined(generate(served.rebuilt(), request, *others[:1])) == alone
    assert joined(generate(served.engine, request._replace(index=6)))[0] != alone[0]
    assert joined(generate(served.engine, request._replace(seed=4)))[0] != alone[0]
