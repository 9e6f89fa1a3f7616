"""Settings of `config.data` for data that users bring."""

import dataclasses
import re
from typing import Literal

from research.data.readers.archives import split_paths
from research.data.readers.fields import MISSING, normal
from research.errors import UserError

FILES = ('text_folder', 'image_folder', 'audio_folder')
ONLY = {  # settings that some readers alone know
    'name': ('tfds',),
    'folder': ('tfds',),
    'columns': ('csv', 'tsv'),
    'delimiter': ('csv', 'tsv'),
    'label_pattern': ('fasta', 'lines', *FILES),
    'fields': ('jsonl', 'csv', 'tsv', 'parquet', 'lines', 'idx', 'fasta', 'tfds'),
}


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Settings of `config.data` for all readers; paths are 'a,b', a pattern, a folder, or a tuple."""

    reader: Literal[
        'jsonl', 'csv', 'tsv', 'parquet', 'lines', 'idx', 'fasta',
        'text_folder', 'image_folder', 'audio_folder', 'tfds',
    ]  # fmt: skip
    train: str | tuple = ''  # for 'lines' and 'idx' also 'field=path,field=path': files read side by side
    validation: str | tuple = ''
    test: str | tuple = ''
    name: str = ''  # of 'tfds': the set; its splits, such as 'train[:90%]', stand where paths do
    folder: str = ''  # of 'tfds': where prepared sets lie; '' for TFDS's own
    fields: str = ''  # 'column:field,column:field': columns of the file that get other names
    columns: str | tuple = ''  # of 'csv' and 'tsv': names for a file without a header line
    delimiter: str = ''  # of 'csv' and 'tsv'; '' for a comma or a tab, or what the first lines agree on
    missing: str | tuple = MISSING  # labels that stand for none: such rows are broken records
    label_pattern: str = ''  # finds the label in a file's path ('': the first folder), of 'fasta' in a name
    validation_fraction: float = 0.1  # cut off from 'train' where `validation` is ''
    test_fraction: float = 0.1  # likewise
    every_class: bool = True  # rows move between splits that are cut off until each class is in every one of them
    on_error: Literal['stop', 'skip'] = 'stop'  # a broken record stops the run, or is left out and counted
    error_limit: int = 100  # with 'skip': more broken records in one split stop the run
    examples: int = 0  # train on this many of the training rows, evenly spread; 0: all
    shape: tuple = ()  # (height, width, channels) of the images that the model reads; (): those of the first

    def __post_init__(self):
        fractions = self.validation_fraction, self.test_fraction
        if min(fractions) < 0 or sum(fractions) >= 1:
            raise UserError(
                'config.data: validation_fraction and test_fraction must be zero or more and together '
                f'below 1, got {fractions[0]} and {fractions[1]}'
            )
        if self.error_limit < 0 or len(self.delimiter) > 1:
            raise UserError('config.data: error_limit must be zero or more and delimiter one character')
        for setting, readers in ONLY.items():
            if getattr(self, setting) and self.reader not in readers:
                raise UserError(
                    f'config.data.{setting}={getattr(self, setting)!r}: config.data.reader={self.reader!r} has no use '
                    f"for it (only {', '.join(readers)}); set it to ''"
                )
        if self.reader == 'tfds' and not self.name:
            raise UserError("config.data.name is missing: the TFDS set to read, such as 'mnist'")
        try:
            re.compile(self.label_pattern)
        except re.error as error:
            raise UserError(f'config.data.label_pattern={self.label_pattern!r}: {error}') from None
        pairs(self.fields)


def pairs(fields: str) -> dict[str, str]:
    """Returns 'column:field,column:field' as {column: field}.

    Raises:
      UserError: for anything else.
    """
    found = {}
    for part in split_paths(fields):
        column, colon, field = (normal(each) for each in part.partition(':'))
        if not (colon and column and field) or field in found.values():
            raise UserError(
                f"config.data.fields: write 'column:field,column:field', each field once, not {part!r}"
            )
        found[column] = field
    return found
