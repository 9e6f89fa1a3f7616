"""A user's texts as a corpus: every document once, in one split."""

import pytest

from research.data.readers import sources
from research.data.text.own_texts import own_texts
from research.errors import UserError


def test_documents_are_lines_files_or_columns_each_once(tmp_path):
    lines = [f'line {number}' for number in range(60)]
    (tmp_path / 'a.txt').write_text('\n'.join(lines + ['', ' ', *lines]))
    corpus = own_texts({'reader': 'lines', 'train': str(tmp_path / 'a.txt'), 'test_fraction': 0.2})()
    found = [text for split in ('train', 'validation', 'test') for text in corpus.documents[split]]
    assert sorted(found) == sorted(lines) and all(corpus.documents.values())
    assert corpus.about['documents']['train'] == len(corpus.documents['train'])
    folder = tmp_path / 'texts'
    folder.mkdir()
    for number, text in enumerate(lines):
        (folder / f'{number}.md').write_text(f'{text}\nand more\n')
    corpus = own_texts({'reader': 'text_folder', 'train': str(folder), 'test_fraction': 0.2})()
    assert sum(map(len, corpus.documents.values())) == 60 and corpus.documents['test'][0].endswith(
        'and more\n'
    )


def test_settings_are_checked_before_anything_is_read():
    with pytest.raises(UserError, match="did you mean 'train'"):
        own_texts({'reader': 'lines', 'trian': 'gone.txt'})
    own_texts({'reader': 'lines', 'train': 'gone.txt'})


def test_a_folder_of_texts_has_classes_and_names_what_is_broken(tmp_path):
    for name, data in {
        'spam/1.txt': b'\xef\xbb\xbfbuy',
        'ham/2.txt': 'grüß'.encode(),
        'ham/3.txt': b'\xff',
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    data = sources(
        {'reader': 'text_folder', 'train': str(tmp_path), 'validation_fraction': 0.0, 'test_fraction': 0.0}
    )
    rows = data.source('train')
    assert data.classes() == ('ham', 'spam') and rows[0] == {'text': 'grüß', 'label': 'ham'}
    assert rows[2] == {'text': 'buy', 'label': 'spam'}
    with pytest.raises(UserError, match='3.txt: not UTF-8 text'):
        rows[1]
