"""From settings to rows: opens the files of a split, gives every row its final form, and cuts off splits."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from research.data.readers import fasta, fields, folders, idx, tables, text
from research.data.readers import tfds as tfds_reader
from research.data.readers.archives import Entry, find, find_all, split_paths
from research.data.readers.rows import (
    SPLITS,
    Broken,
    Row,
    Rows,
    chain,
    change,
    join,
    label_text,
    parts_by_hash,
    without_broken,
)
from research.data.readers.settings import DataSettings, pairs
from research.errors import UserError, nearest

FOLDERS = {
    'text_folder': ((), folders.read_text),
    'image_folder': (folders.PICTURES, folders.read_picture),
    'audio_folder': (folders.SOUNDS, folders.read_sound),
}


def has_own(options: DataSettings, split: str) -> bool:
    """Returns whether a split is read from a place of its own, not cut off from 'train'.

    Raises:
      UserError: for a split that no data set has.
    """
    if split not in SPLITS:
        raise UserError(f'there is no split {split!r}; {nearest(split, SPLITS)}')
    if split == 'train' or getattr(options, split):
        return True
    return options.reader == 'tfds' and bool(
        tfds_reader.own_split(tfds_reader.open_builder(options.name, options.folder), split)
    )


def split_places(options: DataSettings) -> DataSettings:
    """Returns the settings with a place for each split where `train` holds folders that are named for splits."""
    if options.reader not in FOLDERS or options.validation or options.test or options.label_pattern:
        return options
    places = split_paths(options.train)
    if len(places) != 1 or '*' in places[0] or '?' in places[0]:
        return options
    found = folders.split_folders(find(options.train, setting_of('train')))
    if found:
        logging.info('%s: its folders %s are taken for splits', places[0], ', '.join(found.values()))
    root = places[0].rstrip('/')
    return dataclasses.replace(options, **{split: f'{root}/{folder}' for split, folder in found.items()})


def open_parts(
    options: DataSettings, required: tuple[str, ...], content: tuple[str, ...], ignored: tuple[str, ...], split: str
) -> dict[str, Rows]:
    """Returns {split: rows} of one place: for 'train' with the splits that are cut off from it.

    Args:
      options: how the files are read.
      required: fields that every row must have; 'image' and 'audio' among them are decoded.
      content: fields that the hash which cuts splits reads; where only 'label' is one: all but 'label' and `ignored`.
      ignored: see `content`.
      split: 'train', 'validation' or 'test'.
    """
    rows = open_rows(options, split)
    for note in rows.notes:
        (logging.warning if note.level == 'warning' else logging.info)('%s: %s', split, note.text)
    missing = labels_missing(options)
    rows = change(rows, functools.partial(complete, required, decoded_fields(options, required), missing))
    if options.on_error == 'skip':
        rows = dataclasses.replace(without_broken(rows, options.error_limit), error_limit=options.error_limit)
        if rows.skipped:
            count, first = len(rows.skipped), rows.skipped[0]
            logging.warning('%s: %d broken records left out, the first: %s', split, count, first)
    if not rows.size:
        place, first = (
            getattr(options, split) or options.name,
            ''.join(f': {text}' for text in rows.skipped[:1]),
        )
        raise UserError(f'{setting_of(split)}: there are no rows in {place}{first}')
    if split != 'train':
        return {split: rows}
    fractions = {
        name: getattr(options, f'{name}_fraction')
        for name in ('test', 'validation')
        if getattr(options, f'{name}_fraction') and not has_own(options, name)
    }
    if not fractions:
        return {'train': rows}
    content = tuple(name for name in content if name != 'label')
    return parts_by_hash(rows, fractions, content, ignored, options.every_class and 'label' in required)


def setting_of(split: str) -> str:
    """Returns the name of the setting that says where a split is."""
    return f'config.data.{split}'


def decoded_fields(options: DataSettings, required: Sequence[str]) -> tuple[str, ...]:
    """Returns which fields hold files to be read into arrays."""
    return tuple(name for name in ('image', 'audio') if name in required)


def labels_missing(options: DataSettings) -> tuple[str, ...]:
    """Returns the labels that stand for none; a folder's or a set's own name always stands for itself."""
    if options.reader in FOLDERS or options.reader in ('idx', 'fasta', 'tfds'):
        return ()
    return tuple(options.missing.split(',') if isinstance(options.missing, str) else map(str, options.missing))


def complete(
    required: Sequence[str], decoded: Sequence[str], missing: Sequence[str], row: Row, where: str
) -> Row:
    """Returns a row with its fields checked and its files read; raises `Broken` where one is missing or wrong."""
    row = fields.checked(row, required, where, missing)
    return folders.decoded(row, where, decoded) if decoded else row


def open_rows(options: DataSettings, split: str) -> Rows:
    """Returns the rows of the place that a split is read from, as the format's reader gives them."""
    setting, place = setting_of(split), getattr(options, split)
    if options.reader == 'tfds':
        builder = tfds_reader.open_builder(options.name, options.folder)
        rows = tfds_reader.read_tfds(
            builder, place or tfds_reader.own_split(builder, split) or split, setting
        )
        renaming = functools.partial(renamed, pairs(options.fields))
        return change(rows, renaming, keeps_label=not options.fields)
    if options.reader in ('lines', 'idx'):
        return open_arrays(options, place, setting)
    if options.reader in FOLDERS:
        endings, read = FOLDERS[options.reader]
        entries, left_out = find_all(place, setting)
        return folders.read_folder(entries, endings, read, options.label_pattern, left_out)
    entries = find(place, setting)
    if options.reader == 'fasta':
        finish = functools.partial(finished, pairs(options.fields), '')
        return chain([fasta.read_fasta(entry, finish, options.label_pattern) for entry in entries])
    return chain([open_table(options, entry) for entry in entries])


def open_table(options: DataSettings, entry: Entry) -> Rows:
    """Returns the rows of one file of records."""
    finish = functools.partial(finished, pairs(options.fields), parent_of(entry))
    if options.reader == 'jsonl':
        return text.read_jsonl(entry, finish)
    if options.reader == 'parquet':
        return tables.read_parquet(entry, finish)
    quoted = options.reader == 'csv'
    delimiter = options.delimiter or ('' if quoted else '\t')
    return tables.read_delimited(entry, finish, delimiter, quoted, split_paths(options.columns))


def open_arrays(options: DataSettings, place: str | tuple, setting: str) -> Rows:
    """Returns the rows of files that may be read side by side, 'source=a.de,target=a.en'."""
    parts = side_by_side(place, setting)
    if options.reader == 'idx':
        rows = idx.read_idx(parts, setting)
    elif parts.keys() == {''}:
        rows = chain([text.read_lines(entry, label_pattern=options.label_pattern) for entry in parts['']])
    else:
        names = {field: ' + '.join(entry.name for entry in entries) for field, entries in parts.items()}
        rows = join(
            {
                names[field]: chain([text.read_lines(entry, field) for entry in each])
                for field, each in parts.items()
            }
        )
    return change(rows, functools.partial(renamed, pairs(options.fields)), keeps_label=not options.fields)


def side_by_side(place: str | tuple, setting: str) -> dict[str, list[Entry]]:
    """Returns {field: its files}, with the field '' where the paths name none."""
    parts: dict[str, list[str]] = {}
    for path in split_paths(place):
        match = re.match(r'([A-Za-z_]\w*)=(.*)', path)
        parts.setdefault(match[1] if match else '', []).append(match[2] if match else path)
    if '' in parts and len(parts) > 1:
        raise UserError(
            f'{setting}={place!r}: name the field of each path (source=a.de,target=a.en) or of none'
        )
    return {field: find(tuple(paths), setting) for field, paths in parts.items()} or {'': find((), setting)}


def parent_of(entry: Entry) -> str:
    """Returns the folder that relative paths in a table start from; '' where it lies in an archive."""
    return '' if entry.member else str(epath.Path(entry.path).parent)


def finished(names: Mapping[str, str], folder: str, row: Row, where: str) -> Row:
    """Returns a row with its columns renamed and its relative paths of files below the table's folder."""
    row = renamed(names, row, where)
    for field in ('image', 'audio'):
        if folder and isinstance(row.get(field), str):
            row[field] = str(epath.Path(folder) / row[field])
    return row


def renamed(names: Mapping[str, str], row: Row, where: str) -> Row:
    """Returns a row with its columns renamed; a column of a name that is given to another is dropped."""
    if not names:
        return row
    row = fields.normal_names(row, where)
    for column, field in names.items():
        if column not in row:
            swapped = f'; did you mean {field}:{column}?' if field in row else ''
            raise Broken(
                f'{where}: config.data.fields={column}:{field} renames a column that is not there '
                f'(columns: {", ".join(row)}){swapped}'
            )
    kept = {name: value for name, value in row.items() if name not in names and name not in names.values()}
    return kept | {field: row[column] for column, field in names.items()}


def with_classes(rows: Rows, classes: Sequence[str]) -> Rows:
    """Returns rows whose 'label' is the number of its class.

    The rows raise a `UserError` for a class that is not among `classes`: it names the row and the nearest.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    changed = change(rows, functools.partial(numbered, numbers), keeps_label=False)
    label = functools.partial(number_of, rows.label, rows.where, numbers) if rows.label else None
    return dataclasses.replace(changed, label=label)


def number_of(
    label: Callable[[int], Any], where: Callable[[int], str], numbers: Mapping[str, int], number: int
) -> int:
    """Returns the class number of a row without reading all of it."""
    return class_number(numbers, label(number), where(number))


def numbered(numbers: Mapping[str, int], row: Row, where: str) -> Row:
    """Returns a row whose label, if it has one, is a number."""
    return (
        {**row, 'label': class_number(numbers, row['label'], where)} if row.get('label') is not None else row
    )


def class_number(numbers: Mapping[str, int], label: Any, where: str) -> int:
    """Returns the number of a class; a `UserError` for one that the training split has not."""
    name = label_text(label)
    if name not in numbers:
        raise UserError(
            f'{where}: class {name!r} is not among the {len(numbers)} of the training split; '
            f'{nearest(name, numbers)}'
        )
    return numbers[name]
