"""Adult: whether a person of the 1994 census earns more than 50,000 dollars; 32,561 and 16,281 rows, 14 columns.

Source: B. Becker and R. Kohavi, "Adult", UCI repository, 1996. Licence: CC BY 4.0 at UCI. Splits: the official test; a
tenth of the training rows is for validation, by a hash of the row.
Oddities: no header line; a space after each comma; '?' for missing values; labels of the test file end in a full stop,
which is removed here. 'weight' is a sampling weight, not a property of a person, and is not hashed.
"""

import functools

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.archives import find
from research.data.readers.rows import Row, Rows, parts_by_hash
from research.data.readers.tables import read_delimited
from research.data.source import Source, github_files

SOURCE = Source(
    'fairness',
    'CC BY 4.0 at UCI',
    'https://github.com/jbrownlee/Datasets',
    github_files(
        'jbrownlee/Datasets', 'd20fcb6402ae34e653d4513b00f39257bb37ed7f',
        ('adult-train.csv', 3_974_305, '5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d'),
        ('adult-test.csv', 2_003_132, '72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074'),
    ),
)  # fmt: skip
FILES = {'train': 'adult-train.csv', 'validation': 'adult-train.csv', 'test': 'adult-test.csv'}
COLUMNS = (
    'age', 'workclass', 'weight', 'education', 'education_years', 'marital_status', 'occupation',
    'relationship', 'race', 'sex', 'capital_gain', 'capital_loss', 'hours_per_week', 'native_country',
    'label',
)  # fmt: skip


def open(folder: str = '') -> DataSet:
    """Opens the set; a row is {column: text} with 'label' '<=50K' or '>50K'.

    Args:
      folder: of adult-train.csv and adult-test.csv.
    """

    @functools.cache
    def parts(file: str) -> dict[str, Rows]:
        entry = find(located(folder_of(SOURCE, folder), file), 'config.data.folder')[0]
        rows = read_delimited(entry, without_stop, ',', True, COLUMNS)
        return {'test': rows} if file == FILES['test'] else parts_by_hash(rows, {'validation': 0.1}, (), ('weight',))

    about = 'Adult: a person of the 1994 census'
    return DataSet(lambda split: parts(FILES[split])[split], about, fields=COLUMNS, class_names=('<=50K', '>50K'))


def without_stop(row: Row, where: str) -> Row:
    del where
    return {**row, 'label': row['label'].strip().rstrip('.')}
