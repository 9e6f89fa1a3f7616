"""The data sets of labelled texts by name, and those that users bring."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from research.data.readers import has_reader, sources, without_reader
from research.data.readers.archives import data_root, find, open_part
from research.data.readers.rows import Broken, Row, Rows, change, parts_by_hash, select
from research.data.readers.tables import read_delimited, row_name
from research.errors import UserError, choose, nearest, unpack

FRACTIONS = {'test': 0.2, 'validation': 0.2}
TOPICS = ('天气', '饮食', '交通', '学习')  # weather, food, transport, study


class LabelledTexts(NamedTuple):
    """Texts with labels; a row is {'text', perhaps 'pair', 'label'}."""

    source: Callable[[str], Sequence[Row]]  # (split) -> random-access rows
    about: str


def as_it_is(row: Row, where: str) -> Row:
    """Returns a row unchanged."""
    del where
    return row


def chinese(topics: int = 4) -> LabelledTexts:
    """Returns 160 sentences on four topics, written for this project, split by a hash of each.

    Args:
      topics: 2 or more; the first of weather, food, transport and study.

    Raises:
      UserError: for another number.
    """
    if not 2 <= topics <= len(TOPICS):
        raise UserError(f'config.data.topics must be 2 to {len(TOPICS)}, got {topics}')
    file = pathlib.Path(__file__).parents[1] / 'sets' / 'samples' / 'chinese.tsv'
    rows = read_delimited(find(str(file), 'config.data')[0], as_it_is, '\t', False)
    rows = select(rows, [number for number, row in enumerate(rows) if row['label'] in TOPICS[:topics]])
    parts = parts_by_hash(rows, FRACTIONS, ('text',))
    return LabelledTexts(lambda split: choose(split, parts, 'split'), f'Chinese sentences on {topics} topics')


def data_folder(folder: str, name: str) -> str:
    """Returns where a data set lies: `folder`, or below $TESSERA_DATA."""
    return folder or f'{data_root()}/{name}'


def sst2(folder: str = '') -> LabelledTexts:
    """Returns the Stanford Sentiment Treebank, two classes, whole sentences: 6,920, 872 and 1,821.

    Source: Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank";
    its official splits without neutral sentences, as in Kim 2014. Not GLUE's SST-2, which trains on phrases.

    Args:
      folder: where train.tsv, dev.tsv and test.tsv lie; '' for $TESSERA_DATA/sst2.
    """
    place = data_folder(folder, 'sst2')
    files = {'train': 'train.tsv', 'validation': 'dev.tsv', 'test': 'test.tsv'}

    @functools.cache
    def source(split: str) -> Rows:
        entry = find(f'{place}/{choose(split, files, "split")}', 'config.data.folder')[0]
        return change(read_delimited(entry, as_it_is, '\t', False, ('text', 'label')), opinion, keeps_label=False)

    return LabelledTexts(source, 'one sentence of a film review')


def opinion(row: Row, where: str) -> Row:
    """Returns a row of SST-2 with the name of its class."""
    names = {'0': 'negative', '1': 'positive'}
    if row['label'] not in names:
        raise Broken(f'{where}: the label is {row["label"]!r:.20}, not 0 or 1')
    return {**row, 'label': names[row['label']]}


def trec(folder: str = '', labels: Literal['coarse', 'fine'] = 'coarse') -> LabelledTexts:
    """Returns questions by the kind of their answer: 5,452, of which a tenth are validation, and 500.

    Source: X. Li and D. Roth 2002, "Learning Question Classifiers", COLING; its official splits. The validation
    split is chosen by a hash of each question, so that copies stay together. The files are Latin-1.

    Args:
      folder: where TREC.train and TREC.test lie; '' for $TESSERA_DATA/trec_questions.
      labels: 6 'coarse' classes ('HUM') or 50 'fine' ones ('HUM:ind').
    """
    place = data_folder(folder, 'trec_questions')

    @functools.cache
    def parts(name: str) -> dict[str, Rows]:
        entry = find(f'{place}/{name}', 'config.data.folder')[0]
        lines = open_part(entry).read().decode('latin-1').splitlines()  # one byte is not UTF-8
        rows = [question(labels, line, f'{entry.name}, line {number}') for number, line in enumerate(lines, 1)]
        every = Rows(len(rows), rows.__getitem__, functools.partial(row_name, entry.name))
        return parts_by_hash(every, {'validation': 0.1}, ('text',)) if name == 'TREC.train' else {'test': every}

    def source(split: str) -> Rows:
        names = {'train': 'TREC.train', 'validation': 'TREC.train', 'test': 'TREC.test'}
        return parts(choose(split, names, 'split'))[split]

    return LabelledTexts(source, 'one question in English')


def question(labels: str, line: str, where: str) -> Row:
    """Returns 'COARSE:fine What is ... ?' as a row; raises `Broken` for another form."""
    label, _, text = line.strip().partition(' ')
    coarse, colon, _ = label.partition(':')
    if not (coarse and colon and text.strip()):
        raise Broken(f"{where}: expected 'CLASS:kind question', got {line!r:.60}")
    return {'text': text.strip(), 'label': coarse if labels == 'coarse' else label}


def labelled_texts(settings: Mapping[str, Any], pair: bool) -> LabelledTexts:
    """Returns the set that `config.data` names, or the user's own that its reader reads.

    Args:
      settings: 'name' and its other settings, or those of a reader (`research.data.readers`).
      pair: whether a row has a second text, 'pair'.

    Raises:
      UserError: for an unknown name or setting.
    """
    if has_reader(settings):
        data = sources(settings, ('text', 'pair', 'label') if pair else ('text', 'label'))
        return LabelledTexts(data.source, data.about)
    sets = {'chinese': chinese, 'sst2': sst2, 'trec': trec}
    name = settings.get('name', '')
    if name not in sets:
        raise UserError(
            f"config.data.name={name!r}: {nearest(name, sets)}; or read your own by config.data.reader, such as 'tsv'"
        )
    if pair:
        raise UserError(f'config.task.pair: the rows of {name!r} have one text; read your own by config.data.reader')
    options = {key: value for key, value in without_reader(settings).items() if key != 'folder'}
    given = {'folder': settings['folder']} if settings.get('folder') else {}
    return unpack(sets[name], options | given, 'data')
