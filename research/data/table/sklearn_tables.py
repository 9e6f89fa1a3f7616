"""Tables bundled with scikit-learn."""

from research.data.dataset import DataSet
from research.data.readers.rows import Rows, in_memory
from research.data.splitting import by_hash

FRACTIONS = {'test': 0.2, 'validation': 0.2}


def open_bundled(name: str) -> DataSet:
    """Opens the table of `sklearn.datasets.load_<name>`; a row is {column: number, 'label'}.

    Splits: 20% validation and 20% test by a hash of each row.
    """

    def read() -> Rows:
        from sklearn import datasets  # importing it takes a second

        bunch = getattr(datasets, f'load_{name}')()
        columns = [str(name) for name in bunch.feature_names]
        names = [str(name) for name in bunch.target_names]
        rows = [
            {**dict(zip(columns, map(float, values), strict=True)), 'label': names[label]}
            for values, label in zip(bunch.data, bunch.target, strict=True)
        ]
        return in_memory(rows, name)

    return DataSet(by_hash(read, FRACTIONS), f"scikit-learn's {name}", fields=('label',))
