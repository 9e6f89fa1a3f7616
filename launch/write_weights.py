"""Writes a trained run as a Hugging Face folder: config.json, model.safetensors, tokenizer.json and their like.

    python -m launch.write_weights --workdir=runs/sst2 --output=sst2_bert
    python -m launch.train --config=configs/sst2.py:transformer --config.model.weights=sst2_bert --config.train.steps=0

The weights are those that predictions use (the average, the best or the last ones), with adapters folded into them.
Language models, masked models, translation, span corruption, and text and image classifiers are written if a supported
family has their architecture.
"""

from absl import flags

import launch.flags
from research import api
from research.errors import UserError

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
OUTPUT = flags.DEFINE_string('output', '', 'The folder to write; it must be new or empty.')


def main(overrides: dict[str, str]) -> None:
    """Writes the folder and prints its family."""
    if not OUTPUT.value:
        raise UserError('--output is missing: name the folder to write')
    family = api.write_weights(WORKDIR.value, OUTPUT.value, overrides)
    print(f'{OUTPUT.value}: a {family} as other libraries read it; here: --config.model.weights={OUTPUT.value}')


if __name__ == '__main__':
    launch.flags.run(main)
