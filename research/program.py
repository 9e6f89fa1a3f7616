"""The console command `tessera`, which works in a checkout and from a wheel.

A wheel installs `launch` and `configs` below `research`, as one top-level name. Their modules import each other by the
names of a checkout, so this module registers these names before it starts the program.
"""

import importlib
import pathlib
import sys

PACKAGE = pathlib.Path(__file__).parent


def name_packages() -> None:
    """Makes `launch` and `configs` importable: from the checkout, or as aliases of the installed packages."""
    if (PACKAGE.parent / 'launch' / 'main.py').is_file() and (PACKAGE.parent / 'setup.cfg').is_file():
        sys.path.insert(0, str(PACKAGE.parent))  # before other packages of these names
        return
    for name in ('launch', 'configs'):
        sys.modules[name] = importlib.import_module(f'research.{name}')


def main() -> None:
    """Runs `tessera PROGRAM [flags]`."""
    name_packages()
    importlib.import_module('launch.main').main()
