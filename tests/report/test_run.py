"""What is printed at the end of a run: why it stopped, and the next command."""

import types

import pytest
from etils import epath

from research.core.config import TrainSettings
from research.core.outcome import Stop, Summary
from research.core.task import Input
from research.report.run import end_text, next_flags


def spec_of(steps=40, inputs=None, examples=()):
    config = types.SimpleNamespace(train=TrainSettings(steps=steps, best='loss', patience=2, evaluations=4))
    task = types.SimpleNamespace(inputs=inputs or {}, examples=examples)
    return types.SimpleNamespace(config=config, task=task, steps=steps)


@pytest.mark.parametrize(('summary', 'text'), [
    (Summary(40, Stop.DONE, seconds=70, waited=0.25), '1 min 10 s in total; 25.0% of the training time waiting'),
    (Summary(45, Stop.DONE), 'the run had 45 steps already, more than the 40 of this config'),
    (Summary(40, Stop.ALREADY_DONE, seconds=2), 'the run was finished before, at step 40: nothing is left to train'),
    (Summary(20, Stop.PATIENCE), 'stopped at step 20: no better validation loss in 2 evaluations'),
    (Summary(7, Stop.SIGNAL, 15), 'stopped at step 7 by SIGTERM\nsaved; the same command resumes from here'),
])  # fmt: skip
def test_the_end_of_a_run_is_explained(summary, text):
    printed = end_text(summary, spec_of(), epath.Path('runs/x'))
    assert text in printed and ('waiting for data' in printed) == (summary.stop in (Stop.DONE, Stop.PATIENCE))


@pytest.mark.parametrize(('inputs', 'examples', 'flags'), [
    ({'text': Input('text')}, (), "--input='...'"),
    ({'image': Input('image')}, (), '--input=picture.png'),
    ({'audio': Input('audio'), 'rate': Input('number')}, (), '--input=sound.wav'),
    ({'age': Input('number'), 'job': Input('category')}, (), '--input=rows.csv'),
    ({'seed': Input('number')}, ({},), '--count=16 --output=runs/x/predictions'),
])  # fmt: skip
def test_the_next_command_has_the_input_that_the_task_reads(inputs, examples, flags):
    assert next_flags(spec_of(inputs=inputs, examples=examples).task, epath.Path('runs/x')) == flags
