"""Trains, evaluates and reports one config; run again, it resumes.

    python -m launch.train --config=configs/digits.py --workdir=runs/digits
    python -m launch.train --config=configs/digits.py:tiny --config.train.steps=20 --config.methods=lora
"""

import pathlib

from absl import flags

import launch.flags
import research

CONFIG = flags.DEFINE_string('config', '', 'A file of configs/, with :variant where it has some.')
WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run, local or gs://; default runs/<config>.')


def main(overrides: dict[str, str]) -> None:
    """Runs the config of the flags."""
    from research.errors import UserError

    if not CONFIG.value:
        raise UserError('--config is missing, for example --config=configs/digits.py')
    name = pathlib.Path(CONFIG.value.partition(':')[0]).stem
    variant = CONFIG.value.partition(':')[2]
    workdir = WORKDIR.value or f'runs/{name}{"_" + variant if variant else ""}'
    research.run(research.read(CONFIG.value, overrides), workdir)


if __name__ == '__main__':
    launch.flags.run(main)
