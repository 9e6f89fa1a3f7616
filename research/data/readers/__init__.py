"""Readers of user data, selected by `config.data`: one per format, on shared building blocks.

    config.data = {'reader': 'jsonl', 'train': 'data/train-*.jsonl.gz', 'fields': 'sentence:text,class:label'}

`research.data.dataset.open_dataset(config.data)` returns the rows of each split. A path may be a file, a pattern, a
folder, or a path inside a tar or zip; plain or compressed; local or gs://. Splits without a path are cut off from
'train' by a hash of each row's content, so copies of a row stay in one split.
"""
