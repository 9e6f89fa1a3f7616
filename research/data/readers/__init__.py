"""Data that users bring, by `config.data`: one small reader a format, and what all have in common.

    config.data = {'reader': 'jsonl', 'train': 'data/train-*.jsonl.gz', 'fields': 'sentence:text,class:label'}

`research.data.dataset.open_dataset(config.data)` gives the rows of each split. A path may be a file, a pattern, a
folder, or lie inside a tar or zip; plain or compressed; local or gs://. Splits that have no path are cut off from
'train' by a hash of each row's content, so that copies of a row stay on one side.
"""
