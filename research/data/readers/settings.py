"""Settings of `config.data` for data that users bring."""

import dataclasses
import re
from typing import Literal

from research.data.readers.archives import split_paths
from research.data.readers.fields import MISSING, normal
from research.errors import Count, Rate, UserError

FILES = ('text_folder', 'image_folder', 'audio_folder')
READERS_OF = {  # settings that only some readers use
    'name': ('tfds',),
    'folder': ('tfds',),
    'columns': ('csv', 'tsv'),
    'delimiter': ('csv', 'tsv'),
    'label_pattern': ('fasta', 'lines', *FILES),
    'fields': ('jsonl', 'csv', 'tsv', 'parquet', 'squad', 'lines', 'idx', 'fasta', 'tfds'),
}


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Settings of `config.data` for all readers; paths are 'a,b', a pattern, a folder, or a tuple."""

    reader: Literal[
        'jsonl', 'csv', 'tsv', 'parquet', 'squad', 'lines', 'idx', 'fasta',
        'text_folder', 'image_folder', 'audio_folder', 'tfds',
    ]  # fmt: skip
    train: str | tuple = ''  # for 'lines' and 'idx' also 'field=path,field=path': files read side by side
    validation: str | tuple = ''
    test: str | tuple = ''
    name: str = ''  # of 'tfds': the set; its splits, such as 'train[:90%]', take the place of paths
    folder: str = ''  # of 'tfds': folder of prepared sets; '' for the TFDS default
    fields: str = ''  # 'column:field,column:field': columns to rename
    columns: str | tuple = ''  # of 'csv' and 'tsv': names for a file without a header line
    delimiter: str = ''  # of 'csv' and 'tsv'; '' detects it from the first lines
    missing: str | tuple = MISSING  # labels that mean no label: such rows are broken records
    label_pattern: str = ''  # matches the label in a file's path ('': the first folder), or in a FASTA header
    validation_fraction: Rate = 0.1  # cut off from 'train' if `validation` is ''
    test_fraction: Rate = 0.1  # cut off from 'train' if `test` is ''
    every_class: bool = True  # move rows between cut-off splits so that each contains every class
    on_error: Literal['stop', 'skip'] = 'stop'  # a broken record stops the run, or is left out and counted
    error_limit: Count = 100  # with 'skip': more broken records in one split stop the run
    examples: Count = 0  # number of training rows to use, evenly spaced; 0: all
    shape: tuple = ()  # (height, width, channels) of the model input; (): that of the first image

    def __post_init__(self):
        fractions = self.validation_fraction, self.test_fraction
        if sum(fractions) >= 1:
            raise UserError(
                'config.data: validation_fraction and test_fraction must together be below 1, got '
                f'{fractions[0]} and {fractions[1]}'
            )
        if len(self.delimiter) > 1:
            raise UserError(f'config.data.delimiter must be one character, got {self.delimiter!r}')
        for setting, readers in READERS_OF.items():
            if getattr(self, setting) and self.reader not in readers:
                raise UserError(
                    f'config.data.{setting}={getattr(self, setting)!r}: config.data.reader={self.reader!r} does not '
                    f"use it (only {', '.join(readers)} do); set it to ''"
                )
        if self.reader == 'tfds' and not self.name:
            raise UserError("config.data.name is missing: the TFDS set to read, such as 'mnist'")
        try:
            re.compile(self.label_pattern)
        except re.error as error:
            raise UserError(f'config.data.label_pattern={self.label_pattern!r}: {error}') from None
        pairs(self.fields)


def pairs(fields: str) -> dict[str, str]:
    """Parses 'column:field,column:field' as {column: field}.

    Raises:
      UserError: for any other form.
    """
    fields_of = {}
    for part in split_paths(fields):
        column, colon, field = (normal(name) for name in part.partition(':'))
        if not (colon and column and field) or field in fields_of.values():
            raise UserError(
                f"config.data.fields: write 'column:field,column:field', each field once, not {part!r}"
            )
        fields_of[column] = field
    return fields_of
