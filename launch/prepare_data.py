"""Prepares a data set of TensorFlow Datasets, which training then reads without TensorFlow.

    python -m launch.prepare_data --name=ag_news_subset
    python -m launch.prepare_data --name=my_set --module=my_set.py --folder=data

Writes file_format='array_record'. TensorFlow is only needed if the set contains images to encode, or if its builder
uses it; an error message then names the extra: pip install -e '.[prepare]'. Afterwards:

    --config.data.reader=tfds --config.data.name=ag_news_subset
"""

import contextlib
import importlib.util
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from absl import flags
from etils import epath

import launch.flags

NAME = flags.DEFINE_string('name', '', "The data set, as TFDS names it: 'mnist', 'glue/sst2:2.0.0'.")
FOLDER = flags.DEFINE_string('folder', '', "Folder of prepared sets; default: that of TFDS.")
MODULE = flags.DEFINE_string('module', '', 'A Python file with a custom builder.')
INSTALL_HINT = "install TensorFlow, which is only needed to prepare: pip install -e '.[prepare]', then run this again"


def main(overrides: dict[str, str]) -> None:
    """Prepares the data set of the flags and prints its splits."""
    from research.errors import UserError

    if overrides:
        raise UserError('this program uses no config: give --name, --folder and --module')
    if not NAME.value:
        raise UserError("--name is missing: the TFDS set to prepare, such as 'mnist'")
    prepare(NAME.value, FOLDER.value, MODULE.value)


def prepare(name: str, folder: str, module: str) -> None:
    """Downloads and writes a data set.

    Raises:
      UserError: if TFDS has no such set, TensorFlow is needed but missing, or the source cannot be reached.
    """
    builder = make_builder(name, folder, module)
    target = epath.Path(builder.data_dir)
    if target.exists():
        file_format = getattr(builder.info.file_format, 'value', builder.info.file_format)
        print(f'{name}: already there as {file_format} in {target}')
    else:
        check_requirements(name, builder)
        started = time.perf_counter()
        with explained(name, target):
            builder.download_and_prepare(file_format='array_record')
        print(f'{name}: written in {time.perf_counter() - started:.0f} s to {target}')
    for split, info in builder.info.splits.items():
        print(f'  {split:12} {info.num_examples:10,} rows')
    more = f' --config.data.folder={folder}' if folder else ''
    print(f'use it with --config.data.reader=tfds --config.data.name={name}{more}')


def make_builder(name: str, folder: str, module: str) -> Any:
    """Finds the builder of a data set; raises `UserError` if it does not exist or cannot be imported."""
    import tensorflow_datasets as tfds

    from research.data.readers.tfds import find_builder

    if module:
        load_module(module)
    with explained(name, None):
        hint = ' (for a custom set, give the file of its builder as --module)'
        return find_builder(tfds, f'--name={name!r}', name, folder, hint, file_format='array_record')


def load_module(path: str) -> None:
    """Imports a Python file, which registers its builders with TFDS."""
    from research.errors import UserError

    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f'--module={path!r}: there is no such file')
    # As a package, because TFDS looks for a set's description next to its builder.
    folder = [str(file.parent.absolute())]
    loader = importlib.util.spec_from_file_location(file.stem, file, submodule_search_locations=folder)
    if loader is None or loader.loader is None:
        raise UserError(f'--module={path!r}: not a Python file: its name must end in .py')
    loaded = importlib.util.module_from_spec(loader)
    sys.modules[file.stem] = loaded  # TFDS looks up the module of a builder by its name
    loader.loader.exec_module(loaded)


def check_requirements(name: str, builder: Any) -> None:
    """Prints whether writing the set needs TensorFlow; raises `UserError` if it does and is missing."""
    from research.errors import UserError

    encoded = encoded_fields(builder)
    if not encoded:
        fields = ', '.join(builder.info.features)
        print(f'{name}: {fields}: TensorFlow is needed only if the builder itself calls it')
    elif importlib.util.find_spec('tensorflow') is None:
        fields = ', '.join(encoded)
        raise UserError(f'{name}: {fields} must be encoded by TensorFlow, which is missing: {INSTALL_HINT}')
    else:
        print(f'{name}: {", ".join(encoded)} is encoded by TensorFlow')


def encoded_fields(builder: Any) -> list[str]:
    """Fields that TFDS encodes with TensorFlow: images and videos."""
    import tensorflow_datasets as tfds

    encoded_types = (tfds.features.Image, tfds.features.Video)
    fields = []

    def walk(path: str, feature: Any) -> None:
        inner = getattr(feature, 'feature', None)
        if isinstance(feature, encoded_types):
            fields.append(path)
        elif isinstance(feature, tfds.features.FeaturesDict):
            for name, child in feature.items():
                walk(f'{path}/{name}'.strip('/'), child)
        elif inner is not None:
            walk(path, inner)

    walk('', builder.info.features)
    return fields


@contextlib.contextmanager
def explained(name: str, target: Any) -> Iterator[None]:
    """Converts exceptions of TFDS to `UserError`, and removes an incomplete folder `target`."""
    from research.errors import UserError

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if target is not None and target.exists() and not (target / 'dataset_info.json').exists():
            target.rmtree()
        missing = isinstance(error, (ImportError, AttributeError, RuntimeError))
        if missing and 'tensorflow' in str(error).lower():
            raise UserError(f'{name}: {first_line(error)}: {INSTALL_HINT}') from error
        if isinstance(error, (OSError, ImportError)) or 'download' in type(error).__name__.lower():
            raise UserError(f'{name}: {type(error).__name__}: {first_line(error)}') from error
        raise


def first_line(error: Exception) -> str:
    """First line of an exception's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')


if __name__ == '__main__':
    launch.flags.run(main)
