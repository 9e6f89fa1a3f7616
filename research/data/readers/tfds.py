"""Any data set of TensorFlow Datasets, read at random without TensorFlow.

It must have been prepared with file_format='array_record', as `python -m launch.prepare_data` does.
"""

import difflib
import functools
import re
from collections.abc import Mapping
from typing import Any

from etils import epath

from research.data.readers.rows import SPLITS, Row, Rows, row_name
from research.errors import UserError


def find_builder(tfds: Any, setting: str, name: str, folder: str, hint: str = '', **options: Any) -> Any:
    """Returns the builder of a data set, looked for among TFDS's own and in `folder`.

    Raises:
      UserError: where there is none, with the nearest name.
    """
    try:
        return tfds.builder(name, data_dir=folder or None, **options)
    except tfds.core.DatasetNotFoundError:
        pass
    try:
        import tensorflow_datasets.text  # noqa: F401  (registers glue, c4 and others)

        return tfds.builder(name, data_dir=folder or None, **options)
    except (ImportError, tfds.core.DatasetNotFoundError):
        known = tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(re.split('[/:]', name)[0], known, n=1, cutoff=0.5)
    nearest = f'did you mean {close[0]!r}?' if close else 'tfds.list_builders() names them all'
    place = folder or "TFDS's own folder"
    raise UserError(f'{setting}: TFDS has no such set, nor has {place}; {nearest}{hint}')


def open_builder(name: str, folder: str) -> Any:
    """Returns the builder of a prepared data set.

    Args:
      name: 'mnist', 'glue/sst2:2.0.0', or the folder of a prepared version.
      folder: where data sets lie; '' for TFDS's own (~/tensorflow_datasets or $TFDS_DATA_DIR).

    Raises:
      UserError: where it is not there, or not prepared for random access; says how to prepare it.
    """
    import tensorflow_datasets as tfds

    setting = f'config.data.name={name!r}'
    command = f'python -m launch.prepare_data --name={name}' + (f' --folder={folder}' if folder else '')
    if (epath.Path(name) / 'dataset_info.json').exists():
        builder = tfds.builder_from_directory(name)
    else:
        try:
            builder = find_builder(tfds, setting, name, folder)
        except (ImportError, AttributeError) as error:
            raise UserError(f'{setting}: its builder cannot be loaded ({error}); {command}') from error
    if not epath.Path(builder.data_dir).exists() or not builder.info.splits:
        raise UserError(f'{setting} is not prepared yet: {command}')
    kind = getattr(builder.info.file_format, 'value', builder.info.file_format)
    if kind != 'array_record':
        raise UserError(
            f'{setting} is stored as {kind} in {builder.data_dir}, which cannot be read at random; '
            f'prepare it again: {command}' + ('' if folder else ' --folder=SOME_NEW_FOLDER')
        )
    return builder


def own_split(builder: Any, split: str) -> str:
    """Returns the name under which a data set has a split itself, or ''."""
    names = {'validation': ('validation', 'valid', 'dev')}.get(split, (split,))
    return next((name for name in names if name in builder.info.splits), '')


def read_tfds(builder: Any, split: str, setting: str) -> Rows:
    """Returns the rows of a split such as 'train' or 'train[:90%]'; texts are str, class numbers are names.

    Raises:
      UserError: for a split that is not there.
    """
    try:
        source = builder.as_data_source(split)
    except (ValueError, KeyError) as error:
        known = ', '.join(builder.info.splits)
        raise UserError(f'{setting}={split!r}: {str(error).splitlines()[0]} (splits: {known})') from None
    names = {
        field: tuple(feature.names)
        for field, feature in dict(builder.info.features).items()
        if getattr(feature, 'names', None)
    }
    where = functools.partial(row_name, f'{builder.info.full_name}, {split}')
    label = None
    if 'label' in dict(builder.info.features):  # read by itself: decoding a million pictures for it takes hours
        label = functools.partial(tfds_label, label_source(builder, split), names)
    return Rows(len(source), functools.partial(tfds_row, source, names), where, label=label)


def label_source(builder: Any, split: str) -> Any:
    """Returns the rows of a split with their pictures left as they are stored."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    skipped = {name: tfds.decode.SkipDecoding() for name in features if isinstance(features[name], tfds.features.Image)}
    return builder.as_data_source(split, decoders=skipped or None)


def tfds_label(source: Any, names: Mapping[str, tuple[str, ...]], number: int) -> Any:
    """Returns the label of one row as `tfds_row` does, or None."""
    return tfds_row(source, names, number).get('label')


def tfds_row(source: Any, names: Mapping[str, tuple[str, ...]], number: int) -> Row:
    """Returns one row in Python's own types; a label of -1, which TFDS writes for none, is left out."""
    row = {name: plain(value) for name, value in source[number].items()}
    for field, each in names.items():
        value = row.get(field)
        if isinstance(value, int):
            row[field] = each[value] if value >= 0 else None
    return {name: value for name, value in row.items() if value is not None}


def plain(value: Any) -> Any:
    """Returns bytes as text where they are, NumPy scalars as Python's, all else as it is."""
    if isinstance(value, bytes):
        try:
            return value.decode('utf-8')
        except UnicodeDecodeError:
            return value
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    return value.item() if getattr(value, 'ndim', None) == 0 and hasattr(value, 'item') else value


def available(builder: Any) -> tuple[str, ...]:
    """Returns those of train, validation and test that a data set has itself."""
    return tuple(split for split in SPLITS if own_split(builder, split))
