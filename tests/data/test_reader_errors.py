"""What readers say when something is wrong: the file, the line and the reason, or the setting."""

import io

import pytest
from reader_files import WHOLE, make_archive, pack, png

from research.data.dataset import open_dataset
from research.data.readers.archives import find
from research.data.readers.idx import read_array
from research.errors import UserError

BROKEN = [
    ('jsonl', b'{"text": "a"}\n{"text": \n{"text": "c"}\n', 2, r'line 2: not JSON \(.*character 10\)'),
    ('jsonl', b'{"text": "a"}\n\n["b"]\n{"text": "c"}\n', 2, r"line 3: expected an object .* got \['b'\]"),
    ('jsonl', b'{"text": "a"}\n{"text": "\xff"}\n{"text": ""}\n', 2, r'not UTF-8 .*0xff at position 11'),
    ('jsonl', b'{"text": "a"}\n{"word": "b"}\n{"text": "c"}\n', 2, r"line 2: no 'text' \(there: word\)"),
    ('csv', b'text,n\na,1\n"b\nb",1,2\nc,3\n', 2, r'line 3: 3 cells where 2 columns are named'),
    ('csv', b'text,n\na,1\n"b,2\nc,3\nd,4\n', 3, r'line 3: not CSV \(unexpected end of data\)'),
    ('csv', b'text,n\n"a" b,1\nc,3\n', 1, r"line 2: not CSV \(',' expected after '\"'\)"),
    ('tsv', b'text\tn\na\t1\nb\nc\t3\n', 2, r'line 3: 1 cells where 2 columns are named'),
    ('lines', b'a\nb\x80\nc\n', 2, r'line 2: not UTF-8 text \(byte 0x80 at position 2\)'),
]  # fmt: skip


@pytest.mark.parametrize(('reader', 'data', 'good', 'message'), BROKEN)
@pytest.mark.parametrize('how', ['plain', 'gz'])
def test_broken_records_name_file_line_and_reason(tmp_path, reader, data, good, message, how):
    path = pack(tmp_path, how, f'a.{reader}', data)
    settings = {'reader': reader, 'train': path, **WHOLE}
    with pytest.raises(UserError, match=message) as raised:
        list(open_dataset(settings, ('text',)).source('train'))
    assert str(raised.value).startswith(path)
    rows = open_dataset({**settings, 'on_error': 'skip'}, ('text',)).source('train')
    assert len(rows) == len(list(rows)) == good
    assert len(rows.skipped) == 1 and rows.skipped[0] == str(raised.value)


def test_an_open_quote_breaks_one_line_alone(tmp_path):
    (tmp_path / 'a.csv').write_text('text,n\na,1\n"b,2\nc,3\nd,4\n')
    rows = open_dataset({'reader': 'csv', 'train': str(tmp_path / 'a.csv'), 'on_error': 'skip', **WHOLE}).source(
        'train'
    )
    assert [row['text'] for row in rows] == ['a', 'c', 'd'] and rows.where(1).endswith('line 4')


def test_skipped_records_have_a_limit_and_are_reported(tmp_path, monkeypatch):
    (tmp_path / 'a.jsonl').write_text('{"text": "good"}\n' + 'bad\n' * 3)
    settings = {'reader': 'jsonl', 'train': str(tmp_path / 'a.jsonl'), 'on_error': 'skip', **WHOLE}
    logged = []
    monkeypatch.setattr('absl.logging.warning', lambda text, *values: logged.append(text % values))
    assert len(open_dataset({**settings, 'error_limit': 3}).source('train')) == 1
    assert '3 broken records left out' in logged[0] and 'line 2: not JSON' in logged[0]
    with pytest.raises(UserError, match=r'(?s)more than 2 broken records.*a.jsonl, line 2: not JSON.*line 4'):
        open_dataset({**settings, 'error_limit': 2}).source('train')
    (tmp_path / 'a.jsonl').write_text('bad\n')
    with pytest.raises(UserError, match='there are no rows'):
        open_dataset(settings).source('train')


def test_columns_header_and_renaming(tmp_path):
    (tmp_path / 'a.csv').write_text('1, x y,one\n2, z,two\n')
    data = {
        'reader': 'csv',
        'train': str(tmp_path / 'a.csv'),
        'columns': 'n,n,kind',
        'fields': 'kind:label',
        **WHOLE,
    }
    assert list(open_dataset(data).source('train'))[0] == {'n': '1', 'n_2': 'x y', 'label': 'one'}
    with pytest.raises(
        UserError, match='fields=label:kind renames a column that does not exist.*did you mean kind:label'
    ):
        list(open_dataset({**data, 'fields': 'label:kind'}).source('train'))
    semicolon = {**data, 'delimiter': ';', 'columns': ('all',), 'fields': ''}
    assert open_dataset(semicolon).source('train')[0] == {'all': '1, x y,one'}
    (tmp_path / 'empty.csv').write_text('')
    with pytest.raises(UserError, match='empty.csv: the file is empty'):
        open_dataset({'reader': 'csv', 'train': str(tmp_path / 'empty.csv')}).source('train')


@pytest.mark.parametrize(('change', 'message'), [
    ({'reader': 'jsnol'}, 'reader: expected'),
    ({'trian': 'x'}, "did you mean 'train'"),
    ({'validation_fraction': 0.6, 'test_fraction': 0.5}, 'must together be below 1'),
    ({'on_error': 'ignore'}, "'stop' or 'skip'"),
    ({'error_limit': -1}, 'zero or more'),
    ({'fields': 'a'}, 'column:field'),
    ({'fields': 'a:x,b:x'}, 'each field once'),
    ({'folder': 'x'}, "'jsonl' does not use it"),
    ({'reader': 'tfds'}, 'name is missing'),
    ({'label_pattern': '('}, 'label_pattern'),
])  # fmt: skip
def test_wrong_settings_are_refused_before_anything_is_opened(change, message):
    with pytest.raises(UserError, match=message):
        open_dataset({'reader': 'jsonl', 'train': 'nowhere.jsonl', **change})


def test_paths_patterns_variables_and_what_is_not_there(tmp_path, monkeypatch):
    for name in ('part-2.jsonl', 'part-1.jsonl', 'other.txt'):
        (tmp_path / name).write_text('{"text": "' + name + '"}\n')
    monkeypatch.setenv('MY_DATA', str(tmp_path))
    rows = open_dataset({'reader': 'jsonl', 'train': '$MY_DATA/part-*.jsonl', **WHOLE}).source('train')
    assert [row['text'] for row in rows] == ['part-1.jsonl', 'part-2.jsonl']
    assert [rows.where(number).rpartition('/')[2] for number in (0, 1)] == [
        'part-1.jsonl, line 1',
        'part-2.jsonl, line 1',
    ]
    with pytest.raises(UserError, match='MY_MISSING is not set'):
        find('$MY_MISSING/x', 'config.data.train')
    with pytest.raises(
        UserError, match="config.data.train=.*part-3.jsonl': there is no such file; .*did you mean 'part-"
    ):
        find(f'{tmp_path}/part-3.jsonl', 'config.data.train')
    with pytest.raises(UserError, match='config.data.test is empty'):
        find('', 'config.data.test')
    archive = make_archive(tmp_path, 'tar', {'a/x.txt': b'1'})
    with pytest.raises(UserError, match="there is no such file; in .*packed.tar did you mean 'a/x.txt'"):
        find(f'{archive}/a/y.txt', 'config.data.train')
    (tmp_path / 'bad.jsonl.gz').write_bytes(b'not gzip')
    with pytest.raises(UserError, match='bad.jsonl.gz: cannot be read .*gzip'):
        open_dataset({'reader': 'jsonl', 'train': str(tmp_path / 'bad.jsonl.gz')}).source('train')
    (tmp_path / 'bad.parquet').write_bytes(b'not parquet')
    with pytest.raises(UserError, match='bad.parquet: cannot be read as Parquet'):
        open_dataset({'reader': 'parquet', 'train': str(tmp_path / 'bad.parquet')}).source('train')


def test_a_bucket_is_read_through_epath(tmp_path, monkeypatch):
    """No network: a stand-in for gs:// in memory, with the part of epath that the readers use."""
    from etils import epath

    files = {'gs://bucket/data/a.jsonl': b'{"text": "far"}\n', 'gs://bucket/photos/cat/1.png': png(9)}

    class Remote:
        def __init__(self, path):
            self.path = str(path).rstrip('/')

        def exists(self):
            return self.path in files or self.is_dir()

        def is_dir(self):
            return any(name.startswith(self.path + '/') for name in files)

        def iterdir(self):
            names = {
                name[len(self.path) + 1 :].split('/')[0] for name in files if name.startswith(self.path + '/')
            }
            return iter([Remote(f'{self.path}/{name}') for name in sorted(names)])

        def open(self, mode):
            return io.BytesIO(files[self.path])

        def read_bytes(self):
            return files[self.path]

        @property
        def parent(self):
            return Remote(self.path.rpartition('/')[0])

        def __fspath__(self):
            return self.path

        def __lt__(self, other):
            return self.path < other.path

        __str__ = __fspath__

    local = epath.Path
    monkeypatch.setattr(
        epath, 'Path', lambda path: Remote(path) if str(path).startswith('gs://') else local(path)
    )
    rows = open_dataset({'reader': 'jsonl', 'train': 'gs://bucket/data/a.jsonl', **WHOLE}).source('train')
    assert list(rows) == [{'text': 'far'}] and rows.where(0) == 'gs://bucket/data/a.jsonl, line 1'
    rows = open_dataset({'reader': 'image_folder', 'train': 'gs://bucket/photos', **WHOLE}).source('train')
    assert rows[0]['label'] == 'cat' and rows[0]['image'][0, 0, 0] == 9
    with pytest.raises(UserError, match='there is no such file; look it up in the bucket'):
        find('gs://bucket/none', 'config.data.train')


def test_an_idx_file_cut_in_its_head_is_named(tmp_path):
    (tmp_path / 'x-idx3-ubyte').write_bytes(b'\0\0\x08\x03\0\0')
    with pytest.raises(UserError, match='x-idx3-ubyte: broken IDX file: 6 bytes, shorter than its 16-byte header'):
        read_array(find(str(tmp_path / 'x-idx3-ubyte'), 'config.data.train')[0])


def test_an_empty_folder_is_called_empty(tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UserError, match="empty': the folder contains no files"):
        find(str(tmp_path / 'empty'), 'config.data.train')
