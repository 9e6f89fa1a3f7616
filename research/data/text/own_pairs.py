"""Pairs of texts that users bring, such as sentences and their translations."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from research.data.readers import has_reader, sources
from research.data.readers.rows import SPLITS, Broken
from research.errors import UserError


class Pairs(NamedTuple):
    """(source, target) of every pair of each split, and where they come from (JSON-able)."""

    pairs: Mapping[str, list[tuple[str, str]]]
    about: Mapping[str, Any]


def own_pairs(settings: Mapping[str, Any]) -> Callable[[], Pairs]:
    """Checks the settings of a reader and returns the function that reads its pairs.

    A pair is what a row has in its fields 'source' and 'target': two files of lines read side by side, or two
    columns of a table. Splits without a place of their own are cut off by a hash of the source, so that all
    translations of a text are on one side.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    if not has_reader(settings):
        raise UserError(
            "config.data.reader is missing: how to read the pairs, such as 'lines' with config.data.train="
            "'source=train.en,target=train.de'"
        )
    data = sources(settings, ('source',))

    def read() -> Pairs:
        pairs = {}
        for split in SPLITS:
            rows = data.source(split)
            pairs[split] = [pair_of(rows[number], rows.where(number)) for number in range(len(rows))]
        sizes = {split: len(each) for split, each in pairs.items()}
        return Pairs(pairs, {'source': data.about, 'pairs': sizes})

    return read


def pair_of(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Returns (source, target) of a row, without spaces around them; raises `Broken` where one is no text."""
    for name in ('source', 'target'):
        if not isinstance(row.get(name), str):
            there = ', '.join(row)
            raise Broken(f'{where}: no text {name!r} (there: {there}); config.data.fields=column:{name} renames one')
    return row['source'].strip(), row['target'].strip()
