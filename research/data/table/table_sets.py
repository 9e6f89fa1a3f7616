"""The tables by name, which scikit-learn ships, and those that users bring."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from sklearn import datasets

from research.data.readers import has_reader, sources, without_reader
from research.data.readers.rows import Row, Rows, parts_by_hash
from research.data.readers.tables import row_name
from research.errors import UserError, choose, nearest, unpack

FRACTIONS = {'test': 0.2, 'validation': 0.2}
LOADERS = {
    'breast_cancer': datasets.load_breast_cancer,
    'iris': datasets.load_iris,
    'wine': datasets.load_wine,
}


class Table(NamedTuple):
    """A table with classes to tell apart; a row is {column: number or text, 'label': name of its class}."""

    source: Callable[[str], Sequence[Row]]  # (split) -> random-access rows
    about: str


def row_of(rows: Sequence[Row], number: int) -> Row:
    """Returns one of `rows`."""
    return rows[number]


def embedded(name: str) -> Table:
    """Returns a real table that scikit-learn ships, split by a hash of each row: the same for ever."""
    bunch = LOADERS[name]()
    columns = [str(each) for each in bunch.feature_names]
    names = [str(each) for each in bunch.target_names]
    rows = [
        {**dict(zip(columns, map(float, values), strict=True)), 'label': names[label]}
        for values, label in zip(bunch.data, bunch.target, strict=True)
    ]
    every = Rows(len(rows), functools.partial(row_of, rows), functools.partial(row_name, name))
    parts = parts_by_hash(every, FRACTIONS)

    def source(split: str) -> Rows:
        return choose(split, parts, 'split')

    return Table(source, f"scikit-learn's {name}: {', '.join(names)}")


def table_set(settings: Mapping[str, Any], ignored: Sequence[str] = ()) -> Table:
    """Returns the table that `config.data` names, or the user's own that its reader reads.

    Args:
      settings: 'name', or those of a reader (`research.data.readers`).
      ignored: columns that the model does not see, and that must not tell copies of a row apart.

    Raises:
      UserError: for an unknown name or setting.
    """
    if has_reader(settings):
        data = sources(settings, ('label',), ignored)
        return Table(data.source, data.about)
    name = settings.get('name', '')
    if name not in LOADERS:
        raise UserError(
            f'config.data.name={name!r}: {nearest(name, LOADERS)}; or read your own by config.data.reader, '
            "such as 'csv'"
        )
    return unpack(functools.partial(embedded, name), without_reader(settings), 'data')
