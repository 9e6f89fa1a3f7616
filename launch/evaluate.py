"""Evaluates a trained run on one split, with baselines and expected ranges.

    python -m launch.evaluate --workdir=runs/digits --split=test
"""

import json
import sys

from absl import flags

import launch.flags
import research

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
SPLIT = flags.DEFINE_string('split', 'test', 'The split to evaluate: train, validation or test.')
JSON = flags.DEFINE_bool('json', False, 'Print the metrics as JSON instead of a table.')
flags.declare_key_flag('fetch')


def main(overrides: dict[str, str]) -> None:
    """Prints the metrics of the split and stores them in the run's metrics.json."""
    from research.core import metrics as metrics_module

    model = research.load(WORKDIR.value, overrides)
    entry = metrics_module.measure_split(model.evaluate, model.config, SPLIT.value, model.step)
    print(json.dumps(entry, indent=2) if JSON.value else metrics_module.metrics_text(entry))
    try:
        metrics_module.store_metrics(model.workdir, {SPLIT.value: entry})
    except OSError as error:  # a read-only run, or one of another user
        print(f'{model.workdir}/metrics.json was not updated: {error.strerror}', file=sys.stderr)


if __name__ == '__main__':
    launch.flags.run(main)
