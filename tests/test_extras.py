"""Packages of extras: a missing one is a message that names its extra, and the quickstart needs none."""

import configparser
import os
import subprocess
import sys

import pytest
from contract import ROOT

from research.errors import UserError
from research.extras import EXTRAS, FOREIGN, require


@pytest.mark.parametrize('name', EXTRAS)
def test_a_missing_package_names_its_extra(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf'{name}.*tessera\[{EXTRAS[name][0]}\]'):
        require(name)


@pytest.mark.parametrize('name', FOREIGN)
def test_a_missing_foreign_package_names_the_file_that_lists_it(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf'{name}.*launch/foreign.txt'):
        require(f'{name}.part')
    assert f'{name.replace("_", "-")}==' in (ROOT / 'launch' / 'foreign.txt').read_text()


APART = ('beam',)  # Beam needs other versions of packages of the tests: its own tests run in another environment


def test_every_extra_is_declared_and_part_of_the_tests():
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    declared, base = setup['options.extras_require'], setup['options']['install_requires']
    for name, (extra, _) in EXTRAS.items():
        package = name.replace('_', '-')
        assert package in declared[extra] and (extra in APART or package in declared['test'])
        assert package not in base


@pytest.mark.slow
@pytest.mark.parametrize('config', ['digits', 'digits_gan', 'python_lm'])
def test_the_quickstart_needs_no_extra(config, tmp_path):
    code = (
        f'import sys\nfor name in {sorted(EXTRAS)}: sys.modules[name] = None\n'
        f'import research; research.run("configs/{config}.py:tiny", {str(tmp_path)!r})'
    )
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
