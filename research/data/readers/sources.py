"""Opens the files of a split, finalizes every row, and cuts off splits."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from research.data.notes import log_once
from research.data.readers import fasta, fields, folders, idx, squad, tables, text
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
    """Whether a split has its own files, instead of being cut off from 'train'.

    Raises:
      UserError: for an unknown split.
    """
    if split not in SPLITS:
        raise UserError(f'there is no split {split!r}; {nearest(split, SPLITS)}')
    if split == 'train' or getattr(options, split):
        return True
    return options.reader == 'tfds' and bool(
        tfds_reader.own_split(tfds_reader.open_builder(options.name, options.folder), split)
    )


def split_places(options: DataSettings) -> DataSettings:
    """Sets a path for each split if `train` contains folders named after splits."""
    if options.reader not in FOLDERS or options.validation or options.test or options.label_pattern:
        return options
    paths = split_paths(options.train)
    if len(paths) != 1 or '*' in paths[0] or '?' in paths[0]:
        return options
    named = folders.split_folders(find(options.train, setting_of('train')))
    if named:
        logging.info('%s: using its folders %s as splits', paths[0], ', '.join(named.values()))
    root = paths[0].rstrip('/')
    return dataclasses.replace(options, **{split: f'{root}/{folder}' for split, folder in named.items()})


def open_parts(
    options: DataSettings, required: tuple[str, ...], content: tuple[str, ...], ignored: tuple[str, ...], split: str
) -> dict[str, Rows]:
    """{split: rows} of the files of one split; for 'train' with the splits that are cut off from it.

    Args:
      options: how the files are read.
      required: fields required in every row; 'image' and 'audio' among them are decoded.
      content: fields to hash for cutting splits; if only 'label', all but 'label' and `ignored`.
      ignored: see `content`.
      split: 'train', 'validation' or 'test'.
    """
    rows = open_rows(options, split)
    for note in rows.notes:
        log_once(note.level, f'{split}: {note.text}')
    missing = labels_missing(options)
    rows = change(rows, functools.partial(complete, required, decoded_fields(options, required), missing))
    if options.on_error == 'skip':
        rows = dataclasses.replace(without_broken(rows, options.error_limit), error_limit=options.error_limit)
        if rows.skipped:
            count, first = len(rows.skipped), rows.skipped[0]
            log_once('warning', f'{split}: {count} broken records left out, the first: {first}')
    if not rows.size:
        source = getattr(options, split) or options.name
        first = f': {rows.skipped[0]}' if rows.skipped else ''
        raise UserError(f'{setting_of(split)}: there are no rows in {source}{first}')
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
    return f'config.data.{split}'


def decoded_fields(options: DataSettings, required: Sequence[str]) -> tuple[str, ...]:
    """Fields with files that must be decoded to arrays."""
    return tuple(name for name in ('image', 'audio') if name in required)


def labels_missing(options: DataSettings) -> tuple[str, ...]:
    """Labels that mean no label; () for readers whose labels are names of folders or classes."""
    if options.reader in FOLDERS or options.reader in ('idx', 'fasta', 'tfds'):
        return ()
    return tuple(options.missing.split(',') if isinstance(options.missing, str) else map(str, options.missing))


def complete(
    required: Sequence[str], decoded: Sequence[str], missing: Sequence[str], row: Row, where: str
) -> Row:
    """Checks the fields of a row and decodes its files; raises `Broken` if one is missing or invalid."""
    row = fields.checked(row, required, where, missing)
    return folders.decoded(row, where, decoded) if decoded else row


def open_rows(options: DataSettings, split: str) -> Rows:
    """Opens the rows of a split as the reader of its format returns them."""
    setting, paths = setting_of(split), getattr(options, split)
    if options.reader == 'tfds':
        builder = tfds_reader.open_builder(options.name, options.folder)
        rows = tfds_reader.read_tfds(
            builder, paths or tfds_reader.own_split(builder, split) or split, setting
        )
        renaming = functools.partial(renamed, pairs(options.fields))
        return change(rows, renaming, keeps_label=not options.fields)
    if options.reader in ('lines', 'idx'):
        return open_arrays(options, paths, setting)
    if options.reader in FOLDERS:
        endings, read = FOLDERS[options.reader]
        entries, left_out = find_all(paths, setting)
        return folders.read_folder(entries, endings, read, options.label_pattern, left_out)
    entries = find(paths, setting)
    if options.reader == 'fasta':
        finish = functools.partial(finished, pairs(options.fields), '')
        return chain([fasta.read_fasta(entry, finish, options.label_pattern) for entry in entries])
    return chain([open_table(options, entry) for entry in entries])


def open_table(options: DataSettings, entry: Entry) -> Rows:
    """Opens one file of records."""
    finish = functools.partial(finished, pairs(options.fields), parent_of(entry))
    if options.reader == 'jsonl':
        return text.read_jsonl(entry, finish)
    if options.reader == 'squad':
        return squad.read_squad(entry, finish)
    if options.reader == 'parquet':
        return tables.read_parquet(entry, finish)
    quoted = options.reader == 'csv'
    delimiter = options.delimiter or ('' if quoted else '\t')
    return tables.read_delimited(entry, finish, delimiter, quoted, split_paths(options.columns))


def open_arrays(options: DataSettings, paths: str | tuple, setting: str) -> Rows:
    """Opens files that may be read side by side, 'source=a.de,target=a.en'."""
    parts = side_by_side(paths, setting)
    if options.reader == 'idx':
        rows = idx.read_idx(parts, setting)
    elif parts.keys() == {''}:
        rows = chain([text.read_lines(entry, label_pattern=options.label_pattern) for entry in parts['']])
    else:
        names = {field: ' + '.join(entry.name for entry in entries) for field, entries in parts.items()}
        rows = join(
            {
                names[field]: chain([text.read_lines(entry, field) for entry in entries])
                for field, entries in parts.items()
            }
        )
    return change(rows, functools.partial(renamed, pairs(options.fields)), keeps_label=not options.fields)


def side_by_side(paths: str | tuple, setting: str) -> dict[str, list[Entry]]:
    """{field: its files}; the field is '' if the paths name none."""
    parts: dict[str, list[str]] = {}
    for path in split_paths(paths):
        match = re.match(r'([A-Za-z_]\w*)=(.*)', path)
        parts.setdefault(match[1] if match else '', []).append(match[2] if match else path)
    if '' in parts and len(parts) > 1:
        raise UserError(
            f'{setting}={paths!r}: name the field of each path (source=a.de,target=a.en) or of none'
        )
    return {field: find(tuple(paths), setting) for field, paths in parts.items()} or {'': find((), setting)}


def parent_of(entry: Entry) -> str:
    """The folder that relative paths in a table start from; '' inside an archive."""
    return '' if entry.member else str(epath.Path(entry.path).parent)


def finished(names: Mapping[str, str], folder: str, row: Row, where: str) -> Row:
    """Renames columns and resolves relative file paths against the table's folder."""
    row = renamed(names, row, where)
    for field in ('image', 'audio'):
        if folder and isinstance(row.get(field), str):
            row[field] = str(epath.Path(folder) / row[field])
    return row


def renamed(names: Mapping[str, str], row: Row, where: str) -> Row:
    """Renames columns; drops a column whose name is given to another."""
    if not names:
        return row
    row = fields.normal_names(row, where)
    for column, field in names.items():
        if column not in row:
            swapped = f'; did you mean {field}:{column}?' if field in row else ''
            raise Broken(
                f'{where}: config.data.fields={column}:{field} renames a column that does not exist '
                f'(columns: {", ".join(row)}){swapped}'
            )
    kept = {name: value for name, value in row.items() if name not in names and name not in names.values()}
    return kept | {field: row[column] for column, field in names.items()}


def with_classes(rows: Rows, classes: Sequence[str]) -> Rows:
    """Replaces 'label' by the index of its class.

    The rows raise UserError for a class not in `classes`, naming the row and the nearest class.
    """
    numbers = {name: number for number, name in enumerate(classes)}
    changed = change(rows, functools.partial(numbered, numbers), keeps_label=False)
    label = functools.partial(number_of, rows.label, rows.where, numbers) if rows.label else None
    return dataclasses.replace(changed, label=label)


def number_of(
    label: Callable[[int], Any], where: Callable[[int], str], numbers: Mapping[str, int], number: int
) -> int:
    """The class index of a row, without reading all of it."""
    return class_number(numbers, label(number), where(number))


def numbered(numbers: Mapping[str, int], row: Row, where: str) -> Row:
    """Replaces the label of a row, if present, by its class index."""
    return (
        {**row, 'label': class_number(numbers, row['label'], where)} if row.get('label') is not None else row
    )


def class_number(numbers: Mapping[str, int], label: Any, where: str) -> int:
    """The index of a class; raises UserError for a class that is not in the training split."""
    name = label_text(label)
    if name not in numbers:
        raise UserError(
            f'{where}: class {name!r} is not among the {len(numbers)} of the training split; '
            f'{nearest(name, numbers)}'
        )
    return numbers[name]
