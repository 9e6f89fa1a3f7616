"""Exports a trained run as a folder that runs without this package, or checks such a folder.

A check executes the folder's run.py: check only folders that you trust.

    python -m launch.export --workdir=runs/digits --format=stablehlo --output=exported/digits
    python -m launch.export --check=exported/digits
"""

import importlib
import pathlib

from absl import flags

import launch.flags
import research

FORMATS = {
    'stablehlo': 'research.export.stablehlo', 'litert': 'research.export.litert', 'onnx': 'research.export.onnx',
    'gguf': 'research.export.gguf', 'huggingface': 'research.export.huggingface',
}  # fmt: skip
WITH_INT8 = ('litert', 'onnx')  # formats that --int8 is for

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
FORMAT = flags.DEFINE_enum('format', 'stablehlo', list(FORMATS), 'The format of the exported model.')
OUTPUT = flags.DEFINE_string('output', '', 'The folder to write, new or empty.')
INT8 = flags.DEFINE_bool('int8', False, 'Weights in 8 bits, where that is faster and as accurate (litert, onnx).')
CHECK = flags.DEFINE_string('check', '', 'An exported folder whose hashes and test vectors are checked.')
flags.declare_key_flag('fetch')


def main(overrides: dict[str, str]) -> None:
    """Writes or checks a folder and prints one line about it."""
    from research.errors import UserError
    from research.export.check import check_folder

    if bool(CHECK.value) == bool(WORKDIR.value):
        raise UserError('give either --workdir=RUN (a run to export) or --check=FOLDER (an exported folder)')
    if CHECK.value:
        print(check_folder(pathlib.Path(CHECK.value).expanduser()))
        return
    if INT8.value and FORMAT.value not in WITH_INT8:
        raise UserError(f'--int8 is for the format {" or ".join(WITH_INT8)}, not {FORMAT.value}')
    if not OUTPUT.value:
        raise UserError('--output is missing: name a new folder')
    from research.api import published
    from research.export.folder import write_folder
    from research.export.programs import read_source

    model = research.load(WORKDIR.value, overrides)
    source = read_source(model)
    source = source._replace(publish=lambda: published(model.config, model.workdir, source.variables))
    export = importlib.import_module(FORMATS[FORMAT.value]).export
    folder = write_folder(source, FORMAT.value, export, pathlib.Path(OUTPUT.value), INT8.value)
    size = sum(file.stat().st_size for file in folder.rglob('*') if file.is_file())
    check = f'; check it with --check={folder}' if (folder / 'run.py').exists() else ''
    print(f'{FORMAT.value}: {size / 1e6:,.1f} MB in {folder}{check}')


if __name__ == '__main__':
    launch.flags.run(main)
