"""One type for every data set, and one function to open it: a set of `research/data/sets/` or a user's files.

    open_dataset({'name': 'sst2'}, ('text', 'label')).source('train')[0]
    open_dataset({'reader': 'csv', 'train': 'mine.csv'}, ('text', 'label')).source('train')[0]
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from research.data import sets
from research.data.image.images import check_image
from research.data.notes import log_once
from research.data.readers.fields import label_notes
from research.data.readers.rows import SPLITS, Broken, Rows, class_names, in_memory, select, sort_names
from research.data.readers.settings import DataSettings
from research.data.readers.sources import has_own, open_parts, split_places, with_classes
from research.data.readers.walk import Note
from research.errors import UserError, name_of, nearest, unpack

MAX_IMPLICIT_SIDE = 256  # pixels; larger images require an explicit config.data.shape
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Rows by split, opened on first access.

    `class_names` and `image_shape` are values, functions that return them, or None to derive them from the training
    split.
    """

    source: Callable[[str], Any]  # (split) -> random-access rows, `Rows` once the set is open
    about: str  # one-line description
    splits: tuple[str, ...] = SPLITS
    fields: tuple[str, ...] = ()  # present in every row; () if unknown
    class_names: Sequence[str] | Callable[[], Sequence[str]] | None = None
    image_shape: Shape | Callable[[], Shape] | None = None  # (height, width, channels) of the model input
    tokenizer: Callable[[int], Any] | None = None  # (vocabulary size) -> a tokenizer that needs no training

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of their indices."""
        names = self.class_names
        return tuple(class_names(self.source('train')) if names is None else names() if callable(names) else names)

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the model's input images: (height, width, channels)."""
        shape = self.image_shape
        return tuple(first_shape(self.source('train')) if shape is None else shape() if callable(shape) else shape)  # pyright: ignore[reportReturnType]


def open_dataset(settings: Mapping[str, Any], fields: Sequence[str] = (), ignored: Sequence[str] = ()) -> DataSet:
    """Opens the data set of `config.data`; no file is read yet.

    Args:
      settings: 'name' and the settings of a set's `open`, or 'reader' and others of `DataSettings`. A name is a module
        of `research/data/sets/`, the dotted path of a module elsewhere, or a module. A reader replaces the named set.
      fields: required in every row. Splits made by hashing rows hash these fields without 'label'. 'image' and 'audio'
        among them are decoded. () requires none.
      ignored: fields excluded from the hash: unused by models, or different between copies of a row.

    Raises:
      UserError: for an unknown set or setting, an invalid value, or a set whose rows lack a field.
    """
    if settings.get('reader'):
        options = file_settings(settings)
        if options.get('shape') and fields and 'image' not in fields:
            raise UserError('config.data.shape is the shape of images, which this task does not read; set it to ()')
        return open_files(options, fields, ignored)
    name = settings.get('name', '')
    if not name:
        raise UserError(
            "config.data.name is missing: name a data set, such as 'digits', or read your own files by "
            "config.data.reader, such as 'image_folder' or 'csv'"
        )
    module = set_module(name)
    data = unpack(module.open, set_settings(settings, module), 'data')
    label = name_of(name)
    missing = [field for field in fields if data.fields and field not in data.fields]
    if missing:
        raise UserError(
            f'config.data.name={label!r}: its rows have no {missing[0]!r}, which this task reads (they have '
            f'{", ".join(data.fields)}); name another set, or read your own files by config.data.reader'
        )
    source = functools.cache(functools.partial(checked_rows, data, label, tuple(fields)))
    return dataclasses.replace(data, source=source)


def checked_rows(data: DataSet, name: str, fields: tuple[str, ...], split: str) -> Rows:
    """Opens a split of a set as `Rows`; raises UserError if the split or a required field is missing."""
    if split not in data.splits:
        raise UserError(f'config.data.name={name!r} has no {split!r} split; {nearest(split, data.splits)}')
    rows = data.source(split)
    rows = rows if isinstance(rows, Rows) else in_memory(rows, f'{name}, {split}')
    if not len(rows):
        raise UserError(f'config.data.name={name!r}: there are no rows in its {split} split')
    if not data.fields:
        first = rows[0]
        for field in fields:
            if first.get(field) is None:
                raise Broken(f'{rows.where(0)}: no {field!r}, which this task reads (there: {", ".join(first)})')
    return rows


def set_names() -> tuple[str, ...]:
    """Names of the built-in sets: the modules of `research/data/sets/`."""
    return tuple(module.name for module in pkgutil.iter_modules(sets.__path__))


def set_module(name: str | types.ModuleType) -> types.ModuleType:
    """Imports the module of a set, which defines `open(**settings) -> DataSet`.

    Args:
      name: of a built-in set, the dotted path of a module ('my_lab.folding'), or a module.

    Raises:
      UserError: for an unknown name or a module that cannot be imported.
    """
    module, known = name, set_names()
    if isinstance(name, str):
        if name not in known and '.' not in name:
            raise UserError(
                f'config.data.name={name!r} is unknown; {nearest(name, known)} (a set outside this package is named by '
                'the dotted path of its module, an object of a notebook is passed again; TensorFlow Datasets need '
                'config.data.reader=tfds, your own files another reader)'
            )
        try:
            module = importlib.import_module(f'{sets.__name__}.{name}' if name in known else name)
        except ImportError as error:
            raise UserError(f'config.data.name={name!r}: its module cannot be imported ({error})') from error
    elif name_of(name) in known and name is not importlib.import_module(f'{sets.__name__}.{name_of(name)}'):
        raise UserError(f'config.data.name: the object has the name {name_of(name)!r} of a set; set its __name__')
    if not callable(getattr(module, 'open', None)):
        raise UserError(f'config.data.name={name!r}: the module has no function open(**settings) that gives a DataSet')
    return module  # pyright: ignore[reportReturnType]


def default_settings(name: str | types.ModuleType) -> dict[str, Any]:
    """Default settings of a set, from the signature of its `open`."""
    parameters = inspect.signature(set_module(name).open).parameters.values()
    return {item.name: item.default for item in parameters if item.default is not item.empty}


def set_settings(settings: Mapping[str, Any], module: types.ModuleType) -> dict[str, Any]:
    """Settings for a set's `open`: all but the name and unchanged settings that only readers use.

    Raises:
      UserError: for a changed reader setting, because it would be ignored.
    """
    known = inspect.signature(module.open).parameters
    unused = {field.name: field.default for field in dataclasses.fields(DataSettings)} | {'reader': ''}
    for key, value in settings.items():
        plain = tuple(value) if isinstance(value, list) else value  # stored configs hold lists instead of tuples
        if key not in known and key in unused and key != 'name' and (plain or '') != (unused[key] or ''):
            name = name_of(module).removeprefix(f'{sets.__name__}.')
            raise UserError(
                f'config.data.{key}={value!r}: the data set {name!r} has no such setting (it has: '
                f'{", ".join(known) or "none"}); to read your own files set config.data.reader, such as '
                "'csv' or 'image_folder'"
            )
    return {key: value for key, value in settings.items() if key != 'name' and (key in known or key not in unused)}


def file_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a reader, without the name and settings of the set that it replaces.

    The reader `tfds` keeps its name.
    """
    name = settings.get('name', '')
    if not name or settings['reader'] == 'tfds':
        return dict(settings)
    logging.info('config.data.reader=%s replaces the data set %s', settings['reader'], name)
    known = {field.name for field in dataclasses.fields(DataSettings)}
    built_in = not isinstance(name, str) or '.' in name or name in set_names()
    replaced = set(inspect.signature(set_module(name).open).parameters) - known if built_in else set()
    return {key: value for key, value in settings.items() if key != 'name' and key not in replaced}


def open_files(settings: Mapping[str, Any], fields: Sequence[str] = (), ignored: Sequence[str] = ()) -> DataSet:
    """Opens a user's files by the settings of `DataSettings`; see `open_dataset`.

    Class names come from all rows of the 'train' files, including the splits that are cut off from them.
    """
    options = unpack(DataSettings, settings, 'data')
    content = tuple(name for name in fields if name not in ignored)
    resolved = functools.cache(functools.partial(split_places, options))

    @functools.cache
    def opened(split: str) -> dict[str, Rows]:
        parts = open_parts(resolved(), tuple(fields), content, tuple(ignored), split)
        if resolved() == options:
            return parts
        note = Note('note', f'the folders of {options.train} named after splits are read as those splits')
        return {name: dataclasses.replace(rows, notes=(*rows.notes, note)) for name, rows in parts.items()}

    def source(split: str) -> Rows:
        rows = opened(split if has_own(resolved(), split) else 'train').get(split)
        if rows is None:
            raise UserError(
                f'the data set has no {split!r} split: set config.data.{split} or, for a part of the '
                f'training data, config.data.{split}_fraction'
            )
        if not rows.size:
            raise UserError(f'no row fell into the {split!r} split: set config.data.{split}, or larger fractions')
        return first_examples(rows, options.examples) if split == 'train' else rows

    def names() -> tuple[str, ...]:
        classes = sort_names({name for part in opened('train').values() for name in class_names(part)})
        for note in label_notes(classes):
            log_once('warning', note)
        return classes

    location = options.name if options.reader == 'tfds' else options.train
    shape = checked_shape(options.shape) or None
    return DataSet(source, f'{options.reader}: {location}', class_names=names, image_shape=shape)


def first_examples(rows: Rows, examples: int) -> Rows:
    """Selects `examples` evenly spaced rows; 0 selects all.

    Raises:
      UserError: if there are fewer.
    """
    if not 0 <= examples <= len(rows):
        raise UserError(f'config.data.examples must be 0 (all) to {len(rows):,}, got {examples}')
    return select(rows, np.arange(examples) * len(rows) // examples) if examples else rows


def checked_shape(shape: Sequence[Any]) -> Shape:
    """Parses `config.data.shape` as integers; raises UserError for an invalid image shape."""
    try:
        sizes = tuple(int(size) for size in shape)
    except (TypeError, ValueError):
        sizes = (0,)
    if sizes and (len(sizes) != 3 or min(sizes) < 1 or sizes[2] not in (1, 3)):
        raise UserError(
            f'config.data.shape={shape!r}: write height,width,channels, such as 32,32,3 (channels 1 or 3)'
        )
    return sizes


def first_shape(rows: Rows) -> Shape:
    """Shape of the first image; raises UserError if it is larger than `MAX_IMPLICIT_SIDE`."""
    height, width, channels = np.atleast_3d(check_image(rows[0]['image'])).shape
    if max(height, width) > MAX_IMPLICIT_SIDE:
        raise UserError(
            f'{rows.where(0)} is {height}x{width} pixels: set the size of the model input, such as '
            f'--config.data.shape=64,64,{channels}'
        )
    return height, width, channels


def numbered(data: DataSet, classes: Sequence[str] = ()) -> DataSet:
    """Replaces the class name in 'label' with its class index.

    Args:
      data: rows whose 'label' is a class name.
      classes: names stored by an earlier run; () takes those of the data set.
    """

    def source(split: str) -> Rows:
        return with_classes(data.source(split), tuple(classes) or data.classes)

    names = tuple(classes) or (lambda: data.classes)
    return dataclasses.replace(data, source=functools.cache(source), class_names=names)


def shuffled(settings: Mapping[str, Any], data: DataSet) -> DataSet:
    """Shuffles the rows of user files in a fixed order; built-in sets stay unchanged.

    Files are sorted by class, so the first rows of a split alone would not be representative.
    """
    if not settings.get('reader'):
        return data

    def source(split: str) -> Rows:
        rows = data.source(split)
        return select(rows, np.random.default_rng(0).permutation(len(rows)))

    return dataclasses.replace(data, source=source)
