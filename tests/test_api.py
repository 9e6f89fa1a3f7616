"""Python's way in: a run and its model as objects, and tasks, methods, models and data sets outside the package."""

import importlib
import json
import sys
import types

import numpy as np
import pytest

import research
from research import api
from research.errors import UserError

TASK = """
from typing import NamedTuple
import jax.numpy as jnp, numpy as np
from research import Aux, Input, Metric, Task, Variables
from research.data.dataset import open_dataset
from research.errors import task_settings

class Settings(NamedTuple):
    scale: float = 1.0
    names: tuple[str, ...] = ()

def prepare(config, folder): pass

def make(config, folder):
    scale = task_settings(Settings, config).scale
    data = open_dataset(config.data, ('x', 'y'))
    error = lambda v, b: (v.params['model']['kernel'] * b['x'] * scale - b['y']) ** 2 * b['mask']
    return Task(
        inputs={'x': Input('number')}, source=data.source,
        encode=lambda raw, rng=None: {name: np.float32(value) for name, value in raw.items()},
        init=lambda key: Variables({'model': {'kernel': jnp.zeros((1, 1))}}, {}),
        losses={'model': lambda v, b, c: (error(v, b).sum(), Aux(b['mask'].sum()))},
        predict=lambda v, b, c: {'y': v.params['model']['kernel'][0, 0] * b['x'] * scale},
        metric_sums=lambda v, b, c: {'error': error(v, b).sum(), 'count': b['mask'].sum()},
        metrics=lambda sums: {'error': Metric(float(sums['error'] / sums['count']), 0.75, 'lower')},
        decode=lambda outputs: {'y': float(outputs['y'])})
"""
DATA = """
from research.data.dataset import DataSet
from research.data.readers.rows import in_memory

def open(slope: float = 3.0):
    rows = lambda split: in_memory([{'x': x / 32, 'y': slope * x / 32} for x in range(32)], split)
    return DataSet(rows, 'a line', fields=('x', 'y'))
"""
METHOD = """
import dataclasses

@dataclasses.dataclass(frozen=True)
class Settings:
    factor: float = 2.0

def apply(task, settings, config):
    loss = task.losses['model']
    def louder(variables, batch, context):
        value, aux = loss(variables, batch, context)
        return settings.factor * value, aux
    return task._replace(losses={'model': louder})
"""
CONFIG = """
from research.core.config import base

def get_config():
    config = base('my_lab.lines', data='my_lab.line_data')
    config.methods = ('my_lab.louder',)
    config.optimizer.model.update(name='sgd', learning_rate=0.05)
    config.train.update(steps=60, batch_size=16, log_every=30)
    return config
"""


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package outside this one, importable, with a task, a data set, a method and a config."""
    folder = tmp_path / 'my_lab'
    folder.mkdir()
    for name, text in {'lines': TASK, 'line_data': DATA, 'louder': METHOD, 'config': CONFIG}.items():
        (folder / f'{name}.py').write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    yield folder
    for name in [name for name in sys.modules if name.partition('.')[0] == 'my_lab']:
        del sys.modules[name]


def test_task_method_and_data_set_of_another_package_are_trained(lab, tmp_path):
    overrides = {'data.slope': '2', 'task.scale': '0.5', 'task.names': '2003', 'louder.factor': '3'}
    run = research.run(str(lab / 'config.py'), tmp_path / 'run', overrides)
    assert run.stop is research.Stop.DONE and run.step == 60 and run.metrics['test']['error'] < 0.05
    assert run.config.task['names'] == ('2003',) and run.config.settings == {'louder': {'factor': 3.0}}
    model = run.model()
    assert model.predict([{'x': 1.0}, 0.5])[0]['y'] == pytest.approx(2.0, abs=0.3)
    result = research.load(tmp_path / 'run').evaluate('test')
    assert result.count == 32 and result.metrics['error'].value == pytest.approx(run.metrics['test']['error'])
    again = research.run(str(lab / 'config.py'), tmp_path / 'run', overrides)
    assert again.stop is research.Stop.ALREADY_DONE


def test_a_task_may_be_an_object(lab, tmp_path):
    module = types.ModuleType('in_a_notebook')
    exec(TASK, module.__dict__)
    config = research.base(data='my_lab.line_data')
    config.train.update(steps=2, batch_size=16)
    run = research.run(config, tmp_path / 'run', {'task.scale': 2.0}, task=module)
    assert run.config.task['scale'] == 2.0 and 'y' in run.model()({'x': 1.0})
    assert research.run(config, tmp_path / 'run', {'task.scale': 2.0}, task=module).stop is research.Stop.ALREADY_DONE
    with pytest.raises(UserError, match="'in_a_notebook' is unknown"):
        research.load(tmp_path / 'run')
    assert research.load(tmp_path / 'run', task=module).step == 2


def module_of(name, text):
    module = types.ModuleType(name)
    exec(text, module.__dict__)
    return module


@pytest.mark.parametrize('given', ['in the config', 'as arguments'])
def test_data_sets_and_methods_may_be_objects(lab, tmp_path, given):
    data, method = module_of('a_line', DATA), module_of('loud', METHOD)
    method = types.SimpleNamespace(__name__='loud', Settings=method.Settings, apply=method.apply)
    arguments = {'data': data, 'methods': (method, 'my_lab.louder')}
    config = research.base('my_lab.lines', data=data if given == 'in the config' else '')
    config.train.update(steps=2, batch_size=16)
    if given == 'in the config':
        config.methods = arguments.pop('methods')
        arguments.pop('data')
    overrides = {'data.slope': '2', 'loud.factor': '3'}
    run = research.run(config, tmp_path / 'run', overrides, **arguments)
    assert run.stop is research.Stop.DONE and run.model()({'x': 1.0})
    assert run.config.settings == {'loud': {'factor': 3.0}, 'louder': {'factor': 2.0}}
    assert research.run(config, tmp_path / 'run', overrides, **arguments).stop is research.Stop.ALREADY_DONE
    stored = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert stored['data'] == {'name': 'a_line', 'slope': 2.0} and stored['methods'] == ['loud', 'my_lab.louder']
    with pytest.raises(UserError, match="config.data.name='a_line' is unknown.*passed again"):
        research.load(tmp_path / 'run')
    with pytest.raises(UserError, match="config.loud: there is no such section|config.methods: 'loud' is unknown"):
        research.load(tmp_path / 'run', data=data)
    loaded = research.load(tmp_path / 'run', data=data, methods=(method, 'my_lab.louder'))
    assert loaded.evaluate('test').count == 32


def test_an_importable_module_is_stored_by_its_path(lab, tmp_path):
    data, method = importlib.import_module('my_lab.line_data'), importlib.import_module('my_lab.louder')
    config = research.base('my_lab.lines', data=data)
    config.methods = (method,)
    config.train.update(steps=2, batch_size=16)
    research.run(config, tmp_path / 'run')
    assert research.load(tmp_path / 'run').step == 2


@pytest.mark.parametrize(('name', 'text', 'argument'), [('digits', DATA, 'data'), ('lora', METHOD, 'methods')])
def test_an_object_must_not_be_named_like_a_module_of_the_package(lab, name, text, argument):
    module = module_of(name, text)
    with pytest.raises(UserError, match=f'the object has the name {name!r}.*set its __name__'):
        api.read(str(lab / 'config.py'), **{argument: (module,) if argument == 'methods' else module})


@pytest.mark.parametrize(('overrides', 'words'), [
    ({'task.name': 'my_lab.nothing'}, "config.task.name='my_lab.nothing': its module cannot be imported"),
    ({'task.name': 'my_lab.louder'}, 'the module has no prepare'),
    ({'data.name': 'my_lab.louder'}, 'no function open'),
    ({'methods': 'my_lab.lines'}, 'the module has no apply'),
    ({'louder.factr': '3'}, "did you mean 'factor'"),
])  # fmt: skip
def test_what_is_wrong_outside_is_named(lab, overrides, words):
    with pytest.raises(UserError, match=words):
        api.read(str(lab / 'config.py'), overrides)


MODEL = """
from research.models.model import model_of
from research.nn.mlp import MLP
import numpy as np

SETTINGS = {'width': 16}

def image_model(section, images, folder):
    module = MLP(classes=len(images.classes), widths=(section['width'],))
    return model_of(module, lambda batch: (batch['image'],), {'image': np.zeros((1, *images.shape), np.float32)})
"""


def test_a_model_of_another_package_and_one_request(lab, tmp_path):
    (lab / 'net.py').write_text(MODEL)
    run = research.run('configs/digits.py:tiny', tmp_path / 'run', {'model.name': 'my_lab.net', 'model.width': '4'})
    assert run.config.model == {'name': 'my_lab.net', 'width': 4}
    model, picture = run.model(), np.zeros((8, 8, 1), np.float32)
    assert model.variables.params['model']['hidden_0']['kernel'].shape == (64, 4) or model.variables.params['model']
    from PIL import Image

    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / 'a.png')
    answers = [model(str(tmp_path / 'a.png')), model(tmp_path / 'a.png'), model({'image': picture}), model(picture)]
    assert all(answer == answers[0] for answer in answers) and answers[0]['label'] in set('0123456789')
    folder = tmp_path / 'several'
    folder.mkdir()
    for name in ('a', 'b'):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / f'{name}.png')
    with pytest.raises(UserError, match='contains 2 requests: use predict'):
        model(folder)
    assert len(model.predict([folder])) == 2


PAIR = """
import jax.numpy as jnp
from research.core.task import Variables
from research.models.gan import Pair
from research.models.model import model_of
from research.nn.gan import MLPDiscriminator, MLPGenerator
from research.nn.apply import initialize, run_group

SETTINGS = {'latent': 3}

def gan_pair(section, shape, classes):
    makers = {'generator': MLPGenerator(shape, classes, (4,)), 'discriminator': MLPDiscriminator(classes, (4,))}
    one = jnp.zeros(1, jnp.int32)
    inputs = {'generator': jnp.zeros((1, section['latent'])), 'discriminator': jnp.zeros((1, *shape))}
    def init(key):
        return Variables({name: initialize(makers[name], key, inputs[name], one)[0] for name in makers}, {})
    def generate(variables, noise, labels, context):
        return run_group(makers['generator'], variables, 'generator', context, noise, labels)
    def judge(variables, images, labels, context, collections):
        return run_group(makers['discriminator'], variables, 'discriminator', context, images, labels)
    return Pair(generate, judge, init, section['latent'])
"""
TOKENS = """
import jax, jax.numpy as jnp
from research.core.task import Variables
from research.models.model import Model

SETTINGS = {'scale': 1.0}

def logits_of(variables, tokens):
    table = variables.params['model']['table']
    before = jnp.cumsum(table[tokens], axis=1) / (1 + jnp.arange(tokens.shape[1]))[:, None]
    return before @ table.T

def made(section, vocabulary, apply):
    init = lambda key: Variables({'model': {'table': section['scale'] * jax.random.normal(key, (vocabulary, 8))}}, {})
    return Model(init, lambda variables, batch, context: (apply(variables, batch), {}))

def decoder(section, folder, vocabulary, length):
    return made(section, vocabulary, lambda variables, batch: logits_of(variables, batch['tokens']))

def encoder(section, folder, vocabulary, length):
    def apply(variables, batch):
        logits = logits_of(variables, batch['tokens'])
        return jnp.take_along_axis(logits, batch['positions'][..., None], axis=1)
    return made(section, vocabulary, apply)

def encoder_decoder(section, folder, row_length, vocabulary, length, source_vocabulary=0):
    def apply(variables, batch):
        source = logits_of(variables, batch['source']).mean(axis=1, keepdims=True)
        return logits_of(variables, batch['tokens']) + source
    return made(section, vocabulary, apply)
"""


@pytest.mark.slow
def test_a_pair_of_another_package(lab, tmp_path):
    (lab / 'pair.py').write_text(PAIR)
    run = research.run('configs/digits_gan.py:tiny', tmp_path / 'run', {'model.name': 'my_lab.pair'})
    assert run.config.model == {'name': 'my_lab.pair', 'latent': 3} and run.stop is research.Stop.DONE
    assert run.model()({'seed': 1})['image'] is not None


@pytest.mark.parametrize(('config', 'request_'), [
    ('python_lm', 'def f'), ('masked_lm', 'def [MASK](x):'), ('multi30k_translation', 'The rain stopped.'),
])  # fmt: skip
@pytest.mark.slow
def test_token_models_of_another_package(lab, tmp_path, config, request_):
    (lab / 'net.py').write_text(TOKENS)
    overrides = {'model.name': 'my_lab.net', 'train.sample_every': 0, 'train.steps': 2}
    run = research.run(f'configs/{config}.py:tiny', tmp_path / 'run', overrides)
    assert run.config.model == {'name': 'my_lab.net', 'scale': 1.0} and run.stop is research.Stop.DONE
    assert run.model()(request_)
    with pytest.raises(UserError, match="config.model.name='my_lab.nothing': its module cannot be imported"):
        api.read(f'configs/{config}.py:tiny', {'model.name': 'my_lab.nothing'})


def test_names_are_there_for_people_and_tools():
    assert all(getattr(research, name) is not None for name in research.__all__)
    assert set(research.__all__) == set(research.WHERE) and research.__version__
    assert {'run', 'load', 'Task'} <= set(dir(research))
    with pytest.raises(AttributeError, match='no attribute'):
        research.nothing  # noqa: B018


def test_a_checked_config_takes_no_overrides(tmp_path):
    with pytest.raises(UserError, match='already checked'):
        research.run(api.read('configs/digits.py:tiny'), tmp_path / 'run', {'train.steps': 3})
