"""Configs: locked, checked, and with messages that name the nearest right key."""

import json

import pytest

from research import api
from research.core import config as config_module
from research.core.config import base, override, read_config, to_json
from research.core.metrics import record
from research.core.task import Metric
from research.errors import UserError

METHODS = {'lora': {'rank': 8, 'target': ('*kernel',)}}


def example(**train):
    config = base()
    config.task = {'name': 'image_classification'}
    config.train.update({'steps': 5, **train})
    config.lora = METHODS['lora']
    return config.lock()


def test_overrides_take_the_type_of_the_present_value():
    config = example()
    override(config, {
        'train.steps': '1e3', 'train.ema': '0', 'methods': 'lora', 'optimizer.model.learning_rate': '1e-2',
        'optimizer.model.nesterov': 'true', 'optimizer.model.frozen': "('a/*', 'b')", 'seed': '-3', 'lora.rank': '2',
    })  # fmt: skip
    checked = read_config(config, METHODS)
    assert checked.train.steps == 1000 and checked.methods == ('lora',) and checked.seed == -3
    assert checked.optimizer['model'].frozen == ('a/*', 'b') and checked.optimizer['model'].nesterov
    assert checked.settings['lora']['rank'] == 2


@pytest.mark.parametrize(('key', 'value', 'words'), [
    ('train.stepz', '3', "did you mean 'steps'"),
    ('trian.steps', '3', "did you mean 'train'"),
    ('optimizer.model.learning_rat', '1', "did you mean 'learning_rate'"),
    ('optimizer.discriminator.clip', '1', 'choose one of: model'),
    ('train', '3', 'is a section'),
    ('train.steps', 'many', 'expected int'),
    ('train.steps', '1.5', 'expected int'),
        ('train.steps', 'inf', 'expected int'),
    ('optimizer.model.clip', 'x', 'expected float'),
    ('optimizer.model.nesterov', 'maybe', 'expected bool'),
    ('lora.rnk', '3', "did you mean 'rank'"),
])  # fmt: skip
def test_wrong_overrides_are_named(key, value, words):
    with pytest.raises(UserError, match=words):
        override(example(), {key: value})


@pytest.mark.parametrize(('section', 'values', 'words'), [
    ('train', {'batch_size': -4}, 'batch_size must be above zero'),
    ('train', {'batch_size': 'x'}, 'expected int'),
    ('train', {'batch_size': True}, 'expected int'),
    ('train', {'steps': 0}, 'either steps or epochs'),
    ('train', {'epochs': 2.0}, 'either steps or epochs'),
    ('train', {'microbatches': 5}, 'does not divide'),
    ('train', {'ema': 1.0}, 'below 1'),
    ('train', {'patience': 2}, 'needs train.best'),
    ('mesh', {'data': 0}, 'above zero'),
    ('mesh', {'data': -1, 'fsdp': -1}, 'at most one -1'),
    ('methods', ('lorra',), "did you mean 'lora'"),
        ('methods', 'lora', 'names in parentheses'),
        ('optimizer', {'model': 3}, 'optimizer.model must be a section'),
        ('optimizer', {'model': {'learning_rate': float('inf')}}, 'optimizer.model.learning_rate must be above zero'),
        ('expected', {'test': 3}, 'config.expected.test: expected a range'),
        ('expected', {'test': {'accuracy': 0.9}}, 'test.accuracy: expected a range'),
        ('expected', {'test': {'accuracy': (0.9, 0.8)}}, 'above the high end'),
])  # fmt: skip
def test_impossible_values_are_refused(section, values, words):
    config = json.loads(to_json(read_config(example(), METHODS)))
    config[section] = {**config[section], **values} if isinstance(values, dict) else values
    with pytest.raises(UserError, match=words):
        read_config(config, METHODS)


def test_unknown_and_missing_sections():
    config = json.loads(to_json(read_config(example(), METHODS)))
    with pytest.raises(UserError, match="config.optimiser.*did you mean 'optimizer'"):
        read_config({**config, 'optimiser': {}}, METHODS)
    del config['mesh']
    with pytest.raises(UserError, match='config.mesh is missing'):
        read_config(config, METHODS)


def test_what_is_stored_is_enough_to_run_again():
    config = example(best='accuracy')
    override(config, {'methods': 'lora', 'lora.rank': '3'})
    checked = read_config(config, METHODS)
    stored = json.loads(to_json(checked))
    assert to_json(read_config(stored, METHODS)) == to_json(checked)
    assert stored['lora'] == {'rank': 3, 'target': ['*kernel']}
    override(config, {'methods': '()'})
    assert 'lora' not in json.loads(to_json(read_config(config, METHODS)))


def test_configs_are_found_by_path_or_name_and_misses_are_named(tmp_path):
    assert api.find_config('digits').name == 'digits.py'
    with pytest.raises(UserError, match='did you mean .configs/digits.py'):
        api.find_config('configs/digitz.py')
    (tmp_path / 'empty.py').write_text('')
    with pytest.raises(UserError, match='no function get_config'):
        api.load_config(str(tmp_path / 'empty.py'))


def test_tuples_from_text():
    assert config_module.parse_tuple("'a', 'b'") == config_module.parse_tuple('a,b') == ('a', 'b')
    assert (
        config_module.parse_tuple('[1, 2]') == config_module.parse_tuple(' 1, 2') == (1, 2)
        and config_module.parse_tuple('') == ()
    )


def test_the_range_of_a_shipped_set_does_not_hold_for_a_user_s_files():
    shipped = api.read('configs/sst2.py')
    assert shipped.expected
    own = api.read('configs/sst2.py', {'data.reader': 'csv', 'data.train': 'mine.csv'})
    assert own.expected == {}


@pytest.mark.parametrize(('value', 'better', 'passed'), [
    (0.95, 'higher', True), (0.8, 'higher', True), (0.69, 'higher', False), (0.95, 'lower', False),
    (0.1, 'lower', True), (0.95, '', False), (0.1, '', False), (0.8, '', True), (float('nan'), 'higher', False),
])  # fmt: skip
def test_better_than_expected_is_no_failure(value, better, passed):
    entry = record({'a': Metric(value, None, better)}, {'a': (0.7, 0.9)}, {'split': 'test'}, 1)
    assert entry['metrics']['a']['passed'] is passed
