"""Data that users bring, by `config.data`: one small reader a format, and what all have in common.

    config.data = {'reader': 'jsonl', 'train': 'data/train-*.jsonl.gz', 'fields': 'sentence:text,class:label'}

`sources(config.data)` gives the rows of each split. A path may be a file, a pattern, a folder, or lie inside
a tar or zip; plain or compressed; local or gs://. Splits that have no path are cut off from 'train' by a hash
of each row's content, so that copies of a row stay on one side.
"""

from research.data.readers.rows import Broken, Rows, class_names
from research.data.readers.settings import DataSettings, has_reader, reader_settings, without_reader
from research.data.readers.sources import DataSet, sources, with_classes

__all__ = [
    'Broken', 'DataSet', 'DataSettings', 'Rows', 'class_names', 'has_reader', 'sources', 'with_classes',
    'reader_settings', 'without_reader',
]  # fmt: skip
