"""Texts that users bring, as the documents of a corpus for language models."""

from collections.abc import Callable, Mapping
from typing import Any

from research.data.readers import sources
from research.data.readers.rows import SPLITS, key_of
from research.data.text.corpus import Corpus


def own_texts(settings: Mapping[str, Any]) -> Callable[[], Corpus]:
    """Checks the settings of a reader and returns the function that reads its texts.

    A document is what a row has in its field 'text': a line, a file of a folder, a column of a table. A text
    that occurs again is left out: copies would be learned by heart.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    data = sources(settings, ('text',))

    def corpus() -> Corpus:
        documents, seen = {}, set()
        for split in SPLITS:
            rows, texts = data.source(split), []
            for number, row in enumerate(rows):
                key = key_of(rows, number, ('text',))
                if row['text'].strip() and key not in seen:
                    texts.append(row['text'])
                seen.add(key)
            documents[split] = texts
        sizes = {split: len(texts) for split, texts in documents.items()}
        return Corpus(documents, {'source': data.about, 'documents': sizes})

    return corpus
