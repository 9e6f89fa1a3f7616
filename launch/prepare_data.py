"""Prepares a data set of TensorFlow Datasets once; training then reads it without TensorFlow.

    python -m launch.prepare_data --name=ag_news_subset
    python -m launch.prepare_data --name=my_set --module=my_set.py --folder=data

Writes file_format='array_record'. TensorFlow itself is needed only where the set holds pictures to be
encoded, or where its builder calls it; then this program says so: pip install -e '.[prepare]'. Afterwards:

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
FOLDER = flags.DEFINE_string('folder', '', "Where prepared sets lie; default: TFDS's own folder.")
MODULE = flags.DEFINE_string('module', '', 'A Python file with the builder of a set of your own.')
NEEDED = "TensorFlow prepares it and is not needed to train: pip install -e '.[prepare]', then run this again"


def main(overrides: dict[str, str]) -> None:
    """Prepares the data set of the flags and prints its splits."""
    from research.errors import UserError

    if overrides:
        raise UserError('this program reads no config: give --name, --folder and --module')
    if not NAME.value:
        raise UserError("--name is missing: the TFDS set to prepare, such as 'mnist'")
    prepare(NAME.value, FOLDER.value, MODULE.value)


def prepare(name: str, folder: str, module: str) -> None:
    """Downloads and writes a data set.

    Raises:
      UserError: where TFDS has no such set, TensorFlow is needed and absent, or the source cannot be reached.
    """
    builder = make_builder(name, folder, module)
    place = epath.Path(builder.data_dir)
    if place.exists():
        kind = getattr(builder.info.file_format, 'value', builder.info.file_format)
        print(f'{name}: already there as {kind} in {place}')
    else:
        say_what_is_needed(name, builder)
        started = time.perf_counter()
        with explained(name, place):
            builder.download_and_prepare(file_format='array_record')
        print(f'{name}: written in {time.perf_counter() - started:.0f} s to {place}')
    for split, info in builder.info.splits.items():
        print(f'  {split:12} {info.num_examples:10,} rows')
    more = f' --config.data.folder={folder}' if folder else ''
    print(f'use it by   --config.data.reader=tfds --config.data.name={name}{more}')


def make_builder(name: str, folder: str, module: str) -> Any:
    """Returns the builder of a data set; a `UserError` where there is none or it cannot be imported."""
    import tensorflow_datasets as tfds

    from research.data.readers.tfds import find_builder

    if module:
        load_module(module)
    with explained(name, None):
        own = ' (for a set of your own give the file of its builder as --module)'
        return find_builder(tfds, f'--name={name!r}', name, folder, own, file_format='array_record')


def load_module(path: str) -> None:
    """Imports a Python file, which makes the builders in it known to TFDS."""
    from research.errors import UserError

    file = pathlib.Path(path)
    if not file.is_file():
        raise UserError(f'--module={path!r}: there is no such file')
    # As a package, because TFDS looks for a set's description beside its builder.
    folder = [str(file.parent.absolute())]
    loader = importlib.util.spec_from_file_location(file.stem, file, submodule_search_locations=folder)
    loaded = importlib.util.module_from_spec(loader)
    sys.modules[file.stem] = loaded  # TFDS looks up the module of a builder by its name
    loader.loader.exec_module(loaded)


def say_what_is_needed(name: str, builder: Any) -> None:
    """Prints whether writing the set needs TensorFlow; a `UserError` where it does and there is none."""
    from research.errors import UserError

    reasons = encoded_fields(builder)
    if not reasons:
        fields = ', '.join(builder.info.features)
        print(f'{name}: {fields}: TensorFlow is needed only if the builder itself calls it')
    elif importlib.util.find_spec('tensorflow') is None:
        fields = ', '.join(reasons)
        raise UserError(f'{name}: {fields} must be encoded by TensorFlow, which is absent. {NEEDED}')
    else:
        print(f'{name}: {", ".join(reasons)} is encoded by TensorFlow')


def encoded_fields(builder: Any) -> list[str]:
    """Returns the fields that TFDS encodes with TensorFlow: pictures and videos."""
    import tensorflow_datasets as tfds

    kinds = (tfds.features.Image, tfds.features.Video)
    found = []

    def walk(path: str, feature: Any) -> None:
        inner = getattr(feature, 'feature', None)
        if isinstance(feature, kinds):
            found.append(path)
        elif isinstance(feature, tfds.features.FeaturesDict):
            for name, each in feature.items():
                walk(f'{path}/{name}'.strip('/'), each)
        elif inner is not None:
            walk(path, inner)

    walk('', builder.info.features)
    return found


@contextlib.contextmanager
def explained(name: str, place: Any) -> Iterator[None]:
    """Turns what TFDS raises into a message, and removes the half-written folder `place`."""
    from research.errors import UserError

    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if place is not None and place.exists() and not (place / 'dataset_info.json').exists():
            place.rmtree()
        kinds = (ImportError, AttributeError, RuntimeError)
        if 'tensorflow' in str(error).lower() and isinstance(error, kinds):
            raise UserError(f'{name}: {first_line(error)}. {NEEDED}') from error
        if isinstance(error, (OSError, ImportError)) or 'download' in type(error).__name__.lower():
            raise UserError(f'{name}: {type(error).__name__}: {first_line(error)}') from error
        raise


def first_line(error: Exception) -> str:
    """Returns the first line of what an exception says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip('.')


if __name__ == '__main__':
    launch.flags.run(main)
