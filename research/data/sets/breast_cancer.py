"""Breast Cancer Wisconsin (diagnostic): 569 tumours, 30 numbers each, malignant or benign.

Source: W. Wolberg, O. Mangasarian, N. Street and W. Street, UCI repository, 1993,
as scikit-learn ships it. Licence: CC BY 4.0. Splits: 20% validation and 20% test by a hash of each row.
"""

from research.data.dataset import DataSet
from research.data.table.sklearn_tables import open_bundled


def open() -> DataSet:
    """Opens the set; a row is {column: number, 'label': name of the class}."""
    return open_bundled('breast_cancer')
