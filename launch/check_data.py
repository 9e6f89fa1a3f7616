"""Passes over the data of a config alone and says what is in them and what is wrong; trains nothing.

    python -m launch.check_data --config=configs/digits.py
    python -m launch.check_data --config=configs/adult.py:own --config.data.train=mine.csv

Prints sizes, balance of the classes, lengths and shapes, then errors (broken records, labels beyond the
classes, copies of training rows in another split, ...) and warnings. Exit status 1 where there is an error.
"""

import functools
import json
import sys

from absl import flags, logging

import launch.flags

CONFIG = flags.DEFINE_string('config', '', 'A file of configs/, with :variant where it has some.')
LIMIT = flags.DEFINE_integer('limit', 50_000, 'Rows of each split that are looked at; 0: all.', lower_bound=0)
JSON = flags.DEFINE_bool('json', False, 'Print the findings as JSON instead of text.')
flags.declare_key_flag('fetch')


def main(overrides: dict[str, str]) -> int:
    """Prints the report; returns 1 where there is an error."""
    from research import api
    from research.data.check.task import check_data
    from research.data.check.text import report_text, verdict
    from research.errors import UserError

    if not CONFIG.value:
        raise UserError('--config is missing, for example --config=configs/digits.py')
    config = api.read(CONFIG.value, overrides)
    logging.set_verbosity(logging.ERROR)  # the report has what readers warn of
    say = functools.partial(print, file=sys.stderr, flush=True)
    surveys, findings = check_data(config, api.prepare, api.build, LIMIT.value, say)
    if JSON.value:
        values = {
            'rows': {each.split: each.total for each in surveys},
            'findings': [finding._asdict() for finding in findings],
            'verdict': verdict(findings),
        }
        print(json.dumps(values, indent=2, ensure_ascii=False))
    else:
        print(report_text(f'data of {CONFIG.value}', surveys, findings))
    return int(any(finding.level == 'error' for finding in findings))


if __name__ == '__main__':
    launch.flags.run(main)
