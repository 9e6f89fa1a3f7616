"""Configs: locked, checked, and with messages that name the nearest right key."""

import json
from typing import Annotated, Literal

import pytest

from research import api
from research.core.config import TrainSettings, base, read_config, to_json
from research.core.metrics import record
from research.core.task import Metric
from research.errors import Range, UserError
from research.overrides import override, parse, parse_tuple
from research.resolve import settable

METHODS = {'lora': api.method_defaults()['lora']}


def example(**train):
    config = base('image_classification', model='resnet', data='digits')
    config.train.update({'steps': 5, **train})
    config.lora = METHODS['lora']
    return config.lock()


def overridden(assignments, config=None):
    return override((config or example()).to_dict(), assignments, settable)


def test_flags_have_the_type_of_the_setting():
    values = overridden({
        'train.steps': '1e3', 'train.ema_decay': '0', 'methods': 'lora', 'optimizer.model.learning_rate': '1e-2',
        'optimizer.model.nesterov': 'true', 'optimizer.model.frozen': "('a/*', 'b')", 'seed': '3', 'lora.rank': '2',
    })  # fmt: skip
    checked = read_config(values, METHODS)
    assert checked.train.steps == 1000 and checked.methods == ('lora',) and checked.seed == 3
    assert checked.optimizer['model'].frozen == ('a/*', 'b') and checked.optimizer['model'].nesterov
    assert checked.settings['lora']['rank'] == 2


def test_a_flag_names_any_setting_though_the_config_does_not():
    values = overridden({'task.standardize': 'false', 'model.widths': '4,8', 'model.norm': 'group', 'task.top': '2'})
    assert values['task'] == {'name': 'image_classification', 'standardize': False, 'top': 2}
    assert values['model'] == {'name': 'resnet', 'widths': (4, 8), 'norm': 'group'}
    with pytest.raises(UserError, match="did you mean 'standardize'"):
        overridden({'task.standardise': 'false'})
    with pytest.raises(UserError, match="model.widthz.*did you mean 'widths'"):
        overridden({'model.widthz': '3'})


def test_another_model_or_data_set_brings_its_own_settings():
    values = overridden({'model.dropout': '0.2', 'model.name': 'mlp', 'data.name': 'free_spoken_digits',
                         'data.speaker': 'theo'})  # fmt: skip
    assert values['model'] == {'name': 'mlp', 'dropout': 0.2}
    assert values['data'] == {'name': 'free_spoken_digits', 'speaker': 'theo'}
    with pytest.raises(UserError, match='config.model.depths: there is no such setting'):
        overridden({'model.depths': '3', 'model.name': 'mlp'})
    whole = api.read('configs/digits.py:tiny', {'model.name': 'mlp', 'data.name': 'wine'})
    assert 'depths' not in whole.model and whole.model['activation'] == 'relu' and whole.data == {'name': 'wine'}
    files = api.read('configs/adult.py', {'data.reader': 'csv', 'data.train': 'a.csv', 'data.columns': '1,2'})
    assert files.data['columns'] == '1,2' and files.data['on_error'] == 'stop'


def test_defaults_stand_in_the_resolved_config_but_not_beside_weights():
    config = api.read('configs/fashion_resnet.py:vit')
    assert config.model['query_key_value_bias'] is True and config.model['heads'] == 4 and config.task['mixup'] == 0.0
    config = api.read('configs/fashion_resnet.py:vit', {'model.weights': 'somewhere'})
    assert 'heads' not in config.model and config.model['revision'] == ''
    assert api.load_config('configs/digits.py').task.standardize is True
    assert json.loads(to_json(api.read(json.loads(to_json(config))))) == json.loads(to_json(config))


def test_names_of_columns_that_look_like_numbers_stay_texts():
    config = api.read('configs/adult.py', {'task.ignore': '2003', 'task.missing': '-1,none'})
    assert config.task['ignore'] == ('2003',) and config.task['missing'] == ('-1', 'none')


def test_the_last_of_steps_and_epochs_counts():
    assert api.read('configs/digits.py', {'train.steps': '7'}).train.epochs is None
    assert api.read('configs/digits.py:tiny', {'train.epochs': '2'}).train.steps is None
    both = api.read('configs/digits.py', {'train.epochs': 2.0, 'train.steps': 7}).train
    assert (both.steps, both.epochs) == (7, None)
    assert api.read('configs/digits.py', {'train.epochs': 0, 'train.steps': 200}).train.steps == 200
    none = api.read('configs/digits.py', {'train.steps': 0}).train
    assert (none.steps, none.epochs, none.total_steps(100)) == (0, None, 0)
    with pytest.raises(UserError, match='epochs must be above zero'):
        api.read('configs/digits.py', {'train.steps': 200, 'train.epochs': 0})


CONFIG = """from research.core.config import base
def get_config():
    config = base('image_classification', model='mlp', data='digits')
    config.train.epochs = 2.0
    config.expected = {'test': {'accuracy': (0.9, 1.0)}}
    return config
def wide(config):
    config.model.widths = (64,)
def short(config):
    config.train.steps = 3
def _8b(config):
    config.model.widths = (8,)
def long(config):
    config.train.epochs = 9.0
def helper(config, more): pass
def _shared(config):
    config.model.widths = (4,)
def other_data(config):
    config.data.name = 'fashion_mnist'
def better(config):
    _shared(config)
    config.expected = {'test': {'accuracy': (0.98, 1.0)}}
def none(config):
    config.expected = {}
def both(config):
    other_data(config)
    better(config)
"""


def test_variants_are_functions_and_compose(tmp_path):
    file = tmp_path / 'mine.py'
    file.write_text(CONFIG)
    config = api.read(f'{file}:wide,short')
    assert config.model['widths'] == (64,) and (config.train.steps, config.train.epochs) == (3, None)
    assert api.read(f'{file}:wide,8b').model['widths'] == (8,)
    assert api.read(f'{file}:short,long').train.steps is None
    with pytest.raises(UserError, match="no variant 'wid'; did you mean 'wide'"):
        api.read(f'{file}:wid')
    for helper in ('helper', '_shared', 'shared'):
        with pytest.raises(UserError, match=f"no variant '{helper}'"):
            api.read(f'{file}:{helper}')


@pytest.mark.parametrize(('names', 'accuracy'), [
    ('', (0.9, 1.0)), (':wide,short', (0.9, 1.0)), (':better', (0.98, 1.0)), (':better,wide', (0.98, 1.0)),
    (':other_data', None), (':other_data,better', None), (':better,other_data', None), (':none,better', None),
    (':better,better', None), (':both', (0.98, 1.0)), (':both,wide', (0.98, 1.0)),
])  # fmt: skip
def test_expected_ranges_belong_to_one_variant(tmp_path, names, accuracy):
    file = tmp_path / 'mine.py'
    file.write_text(CONFIG)
    assert api.read(f'{file}{names}').expected == ({'test': {'accuracy': accuracy}} if accuracy else {})


def test_ranges_of_a_direction_are_not_those_of_another_size():
    assert api.read('configs/multi30k_translation.py:gpu').expected['test']['bleu'] == (39.0, 41.0)
    for names in ('de_en,gpu', 'gpu,de_en', 'de_en', 'gpu,tiny'):
        assert api.read(f'configs/multi30k_translation.py:{names}').expected == {}


@pytest.mark.parametrize(('text', 'words'), [
    ('def get_config(:\n', 'mine.py:1: '),
    ('import nothing_here\ndef get_config(): pass\n', 'mine.py:1: ModuleNotFoundError'),
    ('def get_config():\n    return 1 / 0\n', 'mine.py:2: ZeroDivisionError'),
    ('def get_config():\n    return {}\n', 'must return a config'),
    ('import sys\ndef get_config():\n    sys.exit(3)\n', r'mine.py: the config ends the program: sys.exit\(3\)'),
    (CONFIG + 'def broken(config):\n    config.train.update(nothing)\n', 'mine.py:29: NameError'),
])  # fmt: skip
def test_a_config_with_an_error_is_one_message(tmp_path, text, words):
    (tmp_path / 'mine.py').write_text(text)
    with pytest.raises(UserError, match=words):
        api.read(f'{tmp_path}/mine.py:broken' if 'broken' in text else f'{tmp_path}/mine.py')


def test_runs_with_older_names_are_read(tmp_path):
    values = json.loads(to_json(api.read('configs/digits.py:tiny')))
    values['train'] |= {'ema': values['train'].pop('ema_decay'), 'average': values['train'].pop('average_checkpoints')}
    values['mesh']['smallest'] = values['mesh'].pop('min_shard_size')
    values['data'] |= {'reader': '', 'train': '', 'fields': '', 'on_error': 'stop'}  # as version 0.1 stored them
    values['train'] |= {'steps': 4, 'epochs': 0.0}
    (tmp_path / 'config.json').write_text(json.dumps(values))
    config = api.read_run(tmp_path)
    assert config.train.ema_decay == 0.99 and config.mesh.min_shard_size == 16384 and config.data == {'name': 'digits'}
    assert (config.train.steps, config.train.epochs) == (4, None)
    values['train'] |= {'steps': 0, 'epochs': 2.0}
    (tmp_path / 'config.json').write_text(json.dumps(values))
    assert (api.read_run(tmp_path).train.steps, api.read_run(tmp_path).train.epochs) == (None, 2.0)


def test_audio_settings_of_older_runs_are_read(tmp_path):
    values = json.loads(to_json(api.read('configs/spoken_digits.py:tiny')))
    values['task'] |= {'low': values['task'].pop('fmin'), 'place': values['task'].pop('crop')}
    (tmp_path / 'config.json').write_text(json.dumps(values))
    task = api.read_run(tmp_path).task
    assert (task['fmin'], task['crop']) == (50.0, 'middle') and not {'low', 'place'} & set(task)


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
        overridden({key: value})


@pytest.mark.parametrize(('section', 'values', 'words'), [
    ('train', {'batch_size': -4}, 'batch_size must be above zero'),
    ('train', {'batch_size': 'x'}, 'expected int'),
    ('train', {'batch_size': True}, 'expected int'),
    ('train', {'steps': None}, 'either steps or epochs'),
    ('train', {'steps': -1}, 'steps must be zero or more'),
    ('train', {'steps': 1.5}, 'steps: expected int . None'),
    ('train', {'epochs': 2.0}, 'either steps or epochs'),
    ('train', {'steps': None, 'epochs': 0.0}, 'epochs must be above zero'),
    ('train', {'microbatches': 5}, 'does not divide'),
    ('train', {'ema_decay': 1.0}, 'at least zero and below 1'),
    ('train', {'patience': 2}, 'needs train.best'),
    ('train', {'patience': 2, 'best': 'loss'}, 'eval_every or train.evaluations'),
    ('train', {'evaluations': -1}, 'evaluations must be zero or more'),
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


@pytest.mark.parametrize(('settings', 'steps', 'interval'), [
    ({}, 100, 0),
    ({'eval_every': 7, 'evaluations': 4}, 100, 7),
    ({'evaluations': 4}, 100, 25),
    ({'evaluations': 40}, 25, 1),  # fewer steps than evaluations
])  # fmt: skip
def test_evaluations_are_spread_over_a_run(settings, steps, interval):
    assert TrainSettings(steps=steps, **settings).evaluation_interval(steps) == interval


def test_unknown_and_missing_sections():
    config = json.loads(to_json(read_config(example(), METHODS)))
    with pytest.raises(UserError, match="config.optimiser.*did you mean 'optimizer'"):
        read_config({**config, 'optimiser': {}}, METHODS)
    del config['mesh']
    with pytest.raises(UserError, match='config.mesh is missing'):
        read_config(config, METHODS)


def test_what_is_stored_is_enough_to_run_again():
    values = overridden({'methods': 'lora', 'lora.rank': '3'}, example(best='accuracy'))
    checked = read_config(values, METHODS)
    stored = json.loads(to_json(checked))
    assert to_json(read_config(stored, METHODS)) == to_json(checked)
    assert stored['lora'] == {**METHODS['lora'], 'rank': 3, 'target': ['*kernel']}
    values = override(values, {'methods': '()'}, settable)
    assert 'lora' not in json.loads(to_json(read_config(values, METHODS)))


def test_configs_are_found_by_path_or_name_and_misses_are_named(tmp_path):
    assert api.find_config('digits').name == 'digits.py'
    for name in ('configs/digitz.py', 'digitz', 'digitz.py'):
        with pytest.raises(UserError, match=f"--config={name}: no such file; did you mean 'digits'"):
            api.find_config(name)
    (tmp_path / 'empty.py').write_text('')
    with pytest.raises(UserError, match='no function get_config'):
        api.load_config(str(tmp_path / 'empty.py'))


def test_tuples_from_text():
    assert parse_tuple("'a', 'b'") == parse_tuple('a,b') == ('a', 'b')
    assert (
        parse_tuple('[1, 2]') == parse_tuple(' 1, 2') == (1, 2)
        and parse_tuple('') == ()
    )


def test_the_range_of_a_shipped_set_does_not_hold_for_a_user_s_files():
    shipped = api.read('configs/sst2.py')
    assert shipped.expected
    own = api.read('configs/sst2.py', {'data.reader': 'csv', 'data.train': 'mine.csv'})
    assert own.expected == {}
    assert api.read('configs/digits.py', {'model.name': 'mlp'}).expected == {}


@pytest.mark.parametrize(('value', 'better', 'passed'), [
    (0.95, 'higher', True), (0.8, 'higher', True), (0.69, 'higher', False), (0.95, 'lower', False),
    (0.1, 'lower', True), (0.95, '', False), (0.1, '', False), (0.8, '', True), (float('nan'), 'higher', False),
])  # fmt: skip
def test_better_than_expected_is_no_failure(value, better, passed):
    entry = record({'a': Metric(value, None, better)}, {'a': (0.7, 0.9)}, {'split': 'test'}, 1)
    assert entry['metrics']['a']['passed'] is passed


@pytest.mark.parametrize(('text', 'kind', 'value'), [
    ('2003', tuple[str, ...], ('2003',)), ('1,b', tuple[str, ...], ('1', 'b')), ('2003', tuple, (2003,)),
    ('1,2', tuple[float, ...], (1.0, 2.0)), ('none', int | None, None), ('3', int | None, 3),
    ('a,b', str | tuple, 'a,b'),
    ("('a', 'b')", str | tuple, ('a', 'b')), ('1e3', Annotated[int, Range(0)], 1000), ('7', str, '7'),
    ('1,2', list[int], [1, 2]), ('2', Literal[1, 2], 2), ('', tuple[str, ...], ()),
])  # fmt: skip
def test_text_becomes_what_the_setting_is(text, kind, value):
    assert parse(text, kind, 'a.b') == value and type(parse(text, kind, 'a.b')) is type(value)


@pytest.mark.parametrize(('text', 'kind'), [
    ('x', int | None), ('1,x', tuple[int, ...]), ('1', tuple[int, int]), ('3', Literal[1, 2]), ('(1', tuple),
])  # fmt: skip
def test_text_that_does_not_fit_is_refused(text, kind):
    with pytest.raises(UserError, match='config.a.b=.*: expected '):
        parse(text, kind, 'a.b')
