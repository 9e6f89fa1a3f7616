"""A user's texts as a corpus: every document once, in one split."""

import pytest

from research.data.dataset import open_dataset
from research.data.text.corpus import describe_documents, read_documents
from research.errors import UserError


def test_documents_are_lines_files_or_columns_each_once(tmp_path):
    lines = [f'line {number}' for number in range(60)]
    (tmp_path / 'a.txt').write_text('\n'.join(lines + ['', ' ', *lines]))
    settings = {'reader': 'lines', 'train': str(tmp_path / 'a.txt'), 'test_fraction': 0.2}
    corpus = read_documents(open_dataset(settings, ('text',)))
    found = [text for split in ('train', 'validation', 'test') for text in corpus[split]]
    assert sorted(found) == sorted(lines) and all(corpus.values())
    assert describe_documents('mine', corpus)['documents']['train'] == len(corpus['train'])
    folder = tmp_path / 'texts'
    folder.mkdir()
    for number, text in enumerate(lines):
        (folder / f'{number}.md').write_text(f'{text}\nand more\n')
    settings = {'reader': 'text_folder', 'train': str(folder), 'test_fraction': 0.2}
    corpus = read_documents(open_dataset(settings, ('text',)))
    assert sum(map(len, corpus.values())) == 60 and corpus['test'][0].endswith(
        'and more\n'
    )


def test_settings_are_checked_before_anything_is_read():
    with pytest.raises(UserError, match="did you mean 'train'"):
        open_dataset({'reader': 'lines', 'trian': 'gone.txt'})
    open_dataset({'reader': 'lines', 'train': 'gone.txt'})


def test_a_folder_of_texts_has_classes_and_names_what_is_broken(tmp_path):
    for name, data in {
        'spam/1.txt': b'\xef\xbb\xbfbuy',
        'ham/2.txt': 'grüß'.encode(),
        'ham/3.txt': b'\xff',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    data = open_dataset(
        {'reader': 'text_folder', 'train': str(tmp_path), 'validation_fraction': 0.0, 'test_fraction': 0.0}
    )
    rows = data.source('train')
    assert data.classes == ('ham', 'spam') and rows[0] == {'text': 'grüß', 'label': 'ham'}
    assert rows[2] == {'text': 'buy', 'label': 'spam'}
    with pytest.raises(UserError, match='3.txt: not UTF-8 text'):
        rows[1]
