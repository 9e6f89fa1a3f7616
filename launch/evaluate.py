"""Measures a trained run on one split, with baselines and expected ranges.

    python -m launch.evaluate --workdir=runs/digits --split=test
"""

import json

from absl import flags

import launch.flags
import research

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
SPLIT = flags.DEFINE_string('split', 'test', 'The split to measure: train, validation or test.')
JSON = flags.DEFINE_bool('json', False, 'Print the figures as JSON instead of a table.')


def main(overrides: dict[str, str]) -> None:
    """Prints the figures of the split and stores them in the run's figures.json."""
    from research.core import figures

    model = research.load(WORKDIR.value, overrides)
    entry = figures.measure_split(model.evaluate, model.config, SPLIT.value, model.step)
    figures.store_figures(model.workdir, {SPLIT.value: entry})
    print(json.dumps(entry, indent=2) if JSON.value else figures.figures_text(entry))


if __name__ == '__main__':
    launch.flags.run(main)
