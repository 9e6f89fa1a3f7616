"""Where packages come from; everything else is in setup.cfg.

The wheel owns one top-level name: `launch` and `configs`, beside `research` in a checkout, install below it.
"""

import setuptools

BESIDE = {'research.launch': 'launch', 'research.configs': 'configs'}

packages = setuptools.find_packages(include=['research', 'research.*'])
for name, folder in BESIDE.items():
    packages += [name, *(f'{name}.{inner}' for inner in setuptools.find_packages(folder))]
setuptools.setup(packages=packages, package_dir=BESIDE)
