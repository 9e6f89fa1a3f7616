"""Data sets of TensorFlow Datasets, with random access and without TensorFlow.

They must be prepared with file_format='array_record', as `python -m launch.prepare_data` does.
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
    """Finds the builder of a data set in TFDS and in `folder`.

    Raises:
      UserError: if the data set is unknown; suggests the nearest name.
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
    searched = folder or 'its default folder'
    raise UserError(f'{setting}: neither TFDS nor {searched} has such a set; {nearest}{hint}')


def open_builder(name: str, folder: str) -> Any:
    """Opens the builder of a prepared data set.

    Args:
      name: 'mnist', 'glue/sst2:2.0.0', or the folder of a prepared version.
      folder: of prepared sets; '' for the TFDS default (~/tensorflow_datasets or $TFDS_DATA_DIR).

    Raises:
      UserError: if it does not exist or is not prepared for random access; shows the command that prepares it.
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
    file_format = getattr(builder.info.file_format, 'value', builder.info.file_format)
    if file_format != 'array_record':
        raise UserError(
            f'{setting} is stored as {file_format} in {builder.data_dir}, which has no random access; '
            f'prepare it again: {command}' + ('' if folder else ' --folder=SOME_NEW_FOLDER')
        )
    return builder


def own_split(builder: Any, split: str) -> str:
    """The data set's own name of a split, or ''."""
    names = {'validation': ('validation', 'valid', 'dev')}.get(split, (split,))
    return next((name for name in names if name in builder.info.splits), '')


def read_tfds(builder: Any, split: str, setting: str) -> Rows:
    """Rows of a split such as 'train' or 'train[:90%]'; texts are str, class indices become names.

    Rows of a set of sounds with one sample rate have that 'rate'.

    Raises:
      UserError: for a split that does not exist.
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
    rates = {getattr(feature, 'sample_rate', 0) or 0 for feature in dict(builder.info.features).values()} - {0}
    facts: Row = {'rate': int(rates.pop())} if len(rates) == 1 and 'rate' not in builder.info.features else {}
    label = None
    if 'label' in dict(builder.info.features):  # read labels without decoding a million pictures
        label = functools.partial(tfds_label, label_source(builder, split), names)
    return Rows(len(source), functools.partial(tfds_row, source, names, facts), where, label=label)


def label_source(builder: Any, split: str) -> Any:
    """Rows of a split with undecoded pictures."""
    import tensorflow_datasets as tfds

    features = dict(builder.info.features)
    skipped = {name: tfds.decode.SkipDecoding() for name in features if isinstance(features[name], tfds.features.Image)}
    return builder.as_data_source(split, decoders=skipped or None)


def tfds_label(source: Any, names: Mapping[str, tuple[str, ...]], number: int) -> Any:
    """The label of one row, or None."""
    return tfds_row(source, names, {}, number).get('label')


def tfds_row(source: Any, names: Mapping[str, tuple[str, ...]], facts: Row, number: int) -> Row:
    """One row in Python types, with `facts` of the set; a label of -1, which TFDS uses for no label, is left out."""
    row = {name: plain(value) for name, value in source[number].items()} | facts
    for field, class_names in names.items():
        value = row.get(field)
        if isinstance(value, int):
            row[field] = class_names[value] if value >= 0 else None
    return {name: value for name, value in row.items() if value is not None}


def plain(value: Any) -> Any:
    """Decodes bytes that are UTF-8 and converts NumPy scalars to Python's."""
    if isinstance(value, bytes):
        try:
            return value.decode('utf-8')
        except UnicodeDecodeError:
            return value
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return value.item() if getattr(value, 'ndim', None) == 0 and hasattr(value, 'item') else value


def available(builder: Any) -> tuple[str, ...]:
    """The splits among train, validation and test that a data set defines itself."""
    return tuple(split for split in SPLITS if own_split(builder, split))
