"""Writes report.html of a run, finished or not.

    python -m launch.report --workdir=runs/digits
"""

from absl import flags

import launch.flags

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')


def main(overrides: dict[str, str]) -> None:
    """Writes the report and prints its path."""
    from research import api
    from research.locations import run_folder
    from research.report.page import write_report

    api.read_run(WORKDIR.value)  # a clear error if there is no run
    print(f'report: {write_report(run_folder(WORKDIR.value))}')


if __name__ == '__main__':
    launch.flags.run(main)
