"""Wine: 178 wines, 13 chemical measurements each, three cultivars.

Source: S. Aeberhard and M. Forina, UCI repository, 1991,
as scikit-learn ships it. Licence: CC BY 4.0. Splits: 20% validation and 20% test by a hash of each row.
"""

from research.data.dataset import DataSet
from research.data.table.sklearn_tables import open_bundled


def open() -> DataSet:
    """Opens the set; a row is {column: number, 'label': name of the class}."""
    return open_bundled('wine')
