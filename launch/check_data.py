"""Validates the data of a config and reports problems before training.

    python -m launch.check_data --config=configs/digits.py
    python -m launch.check_data --config=configs/adult.py:own --config.data.train=mine.csv

Prints sizes, class balance, lengths and shapes, then errors (broken records, labels outside the classes, copies of
training rows in another split, ...) and warnings. The exit status is 1 if there is an error.
"""

import functools
import json
import sys

from absl import flags, logging

import launch.flags

CONFIG = flags.DEFINE_string('config', '', 'A file of configs/, optionally with :variant.')
LIMIT = flags.DEFINE_integer('limit', 50_000, 'Number of rows to check per split; 0: all.', lower_bound=0)
JSON = flags.DEFINE_bool('json', False, 'Print the findings as JSON instead of text.')
flags.declare_key_flag('fetch')


def main(overrides: dict[str, str]) -> int:
    """Prints the report; returns 1 if there is an error."""
    from research import api
    from research.data.check.task import check_data
    from research.data.check.text import report_text, verdict
    from research.errors import UserError

    if not CONFIG.value:
        raise UserError('--config is missing, for example --config=configs/digits.py')
    config = api.read(CONFIG.value, overrides)
    logging.set_verbosity(logging.ERROR)  # the report includes the warnings of readers
    log = functools.partial(print, file=sys.stderr, flush=True)
    surveys, findings = check_data(config, api.prepare, api.build, LIMIT.value, log)
    if JSON.value:
        values = {
            'rows': {survey.split: survey.total for survey in surveys},
            'findings': [finding._asdict() for finding in findings],
            'verdict': verdict(findings),
        }
        print(json.dumps(values, indent=2, ensure_ascii=False))
    else:
        print(report_text(f'data of {CONFIG.value}', surveys, findings))
    return int(any(finding.level == 'error' for finding in findings))


if __name__ == '__main__':
    launch.flags.run(main)
