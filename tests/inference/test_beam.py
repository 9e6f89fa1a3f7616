"""A Beam pipeline writes the same bytes as `launch.predict`, broken inputs included."""

import functools
import importlib

import pytest

import launch.predict
import research

pytest.importorskip('apache_beam', reason='the extra beam is not installed')

ROWS = 30


@pytest.fixture(scope='module')
def lm(tmp_path_factory):
    """A language model whose answers are sampled."""
    settings = {'train.steps': '0', 'train.eval_batch_size': '4', 'task.max_new_tokens': '6'}
    return research.run('configs/python_lm.py:tiny', tmp_path_factory.mktemp('lm'), settings).workdir


def predict(*flags):
    """The exit status of the program, run in this process."""
    importlib.reload(launch.predict)  # defines its flags anew: other programs share some names
    for name in ('workdir', 'input', 'count', 'interactive', 'seed', 'output', 'runner'):
        launch.predict.flags.FLAGS[name].unparse()  # flags keep their values between runs in one process
    with pytest.raises(SystemExit) as ended:
        launch.flags.run(launch.predict.main, ['predict', *map(str, flags)])
    return ended.value.code


def test_the_pipeline_writes_the_bytes_of_predict(lm, tmp_path, capsys):
    lines = [f'{{"text": "import {number}"}}\n' for number in range(ROWS)]
    (tmp_path / 'rows.jsonl').write_text(''.join([*lines[:9], 'broken\n', *lines[9:]]))
    (tmp_path / 'one.txt').write_text('def f(\u2028x):')
    flags = [f'--workdir={lm}', f'--input={tmp_path / "rows.jsonl"}', f'--input={tmp_path / "one.txt"}', '--seed=3']
    assert predict(*flags, '--input=typed', f'--output={tmp_path / "here"}') == 1
    assert predict(*flags, '--input=typed', f'--output={tmp_path / "beam"}', '--runner=beam') == 1
    written = (tmp_path / 'here' / 'answers.jsonl').read_bytes()
    assert (tmp_path / 'beam' / 'answers.jsonl').read_bytes() == written
    assert written.count(b'\n') == ROWS + 3 and sorted(path.name for path in (tmp_path / 'beam').iterdir()) == [
        'answers.jsonl'
    ]
    assert capsys.readouterr().err.count('1 of 33 inputs could not be answered') == 2


def test_a_mistake_on_the_command_line_is_one_message(lm, tmp_path, capsys):
    assert predict(f'--workdir={lm}', '--input=x', '--runner=beam') == 1
    assert '--runner=beam needs --input' in capsys.readouterr().err
    assert predict(f'--workdir={lm}', '--input=x', 'unknown') == 1
    assert 'not understood: unknown' in capsys.readouterr().err


def test_a_handler_answers_a_collection_of_ones_own(lm):
    import apache_beam as beam
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.testing.util import assert_that, equal_to

    from research.inference.beam import LOCAL_RUNNER, RunHandler

    requests = [{'text': f'x = {number}'} for number in range(9)]
    model = research.load(lm)
    wanted = [model.task.decode(outputs)['text'] for _, outputs in model.answers(requests, seed=1)]
    handler = RunHandler(functools.partial(research.load, str(lm)), batch_size=4, seed=1)
    with beam.Pipeline(runner=LOCAL_RUNNER) as pipeline:
        answered = (
            pipeline | beam.Create(list(enumerate(requests))[::-1]) | beam.Reshuffle() | RunInference(handler)
            | beam.Map(lambda row: (row.place, __import__('json').loads(row.line)['text'], row.error))
        )  # fmt: skip
        assert_that(answered, equal_to([(place, text, '') for place, text in enumerate(wanted)]))
