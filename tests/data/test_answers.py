"""Layouts of files with questions and answers, and errors in them."""

import gzip
import json

import pytest

from research.data.dataset import open_dataset
from research.data.readers.rows import Broken
from research.data.sets import facts, squad
from research.data.text.answers import question_rows, with_references
from research.errors import UserError

CONTEXT = 'Ada met Bela. Bela met Ada.'
ANSWERS = [{'text': 'Bela', 'answer_start': 14}, {'text': 'Ada', 'answer_start': 0}]


def squad_json(**changes):
    question = {'question': 'Who met Ada?', 'id': 'q1', 'answers': ANSWERS, **changes}
    other = {'question': 'When?', 'id': 'q2', 'answers': [], 'is_impossible': True, 'plausible_answers': ANSWERS}
    paragraph = {'context': CONTEXT, 'qas': [question, other]}
    return {'version': 'v2.0', 'data': [{'title': 'People', 'paragraphs': [paragraph]}]}


def opened(file, reader, **settings):
    whole = {'validation_fraction': 0.0, 'test_fraction': 0.0}
    return open_dataset({'reader': reader, 'train': str(file), **whole, **settings}, ('question', 'context'))


def test_squad_files_are_read_compressed_or_not(tmp_path):
    file = tmp_path / 'train.json.gz'
    file.write_bytes(gzip.compress(json.dumps(squad_json()).encode()))
    rows = question_rows(opened(file, 'squad'), 'train')
    first, second = rows
    assert first == {
        'question': 'Who met Ada?', 'context': CONTEXT, 'answers': ['Bela', 'Ada'], 'starts': [14, 0], 'id': 'q1',
        'title': 'People',
    }  # fmt: skip
    assert second['answers'] == [] and rows.where(1).endswith('train.json.gz, question q2')
    (tmp_path / 'cmrc.json').write_text(json.dumps(squad_json(), ensure_ascii=False), encoding='utf-8-sig')
    assert len(opened(tmp_path / 'cmrc.json', 'squad').source('train')) == 2


@pytest.mark.parametrize(('content', 'message'), [
    ('[]', 'expected an object'), ('{"data": 1}', "expected a list of objects 'data' as in SQuAD"),
    ('{"data": [{"title": "A"}]}', "article 'A': expected a list of objects 'paragraphs'"),
    ('{"data": [', 'not JSON'),
])  # fmt: skip
def test_another_json_file_is_refused(tmp_path, content, message):
    (tmp_path / 'a.json').write_text(content)
    with pytest.raises(UserError, match=message):
        opened(tmp_path / 'a.json', 'squad').source('train')


def test_a_flat_table_may_leave_out_the_position(tmp_path):
    (tmp_path / 'a.csv').write_text(
        'q,context,answer,answer_start\nWho?,"a, b b",b,5\nWho?,"a, b b",b,\nWho?,x,,\n', encoding='utf-8'
    )
    rows = list(question_rows(opened(tmp_path / 'a.csv', 'csv', fields='q:question'), 'train'))
    assert [row['starts'] for row in rows] == [[5], [3], []] and [row['answers'] for row in rows] == [['b'], ['b'], []]


def test_json_lines_with_lists_of_texts_and_starts():
    row = {'question': 'q', 'context': CONTEXT, 'answers': {'text': ['Bela', 'Ada'], 'answer_start': [14, 0]}}
    read = with_references(row, 'here')
    assert (read['answers'], read['starts']) == (['Bela', 'Ada'], [14, 0])
    assert with_references(read, 'here') == read  # reading twice changes nothing


def test_positions_are_code_points_and_a_wrong_one_moves_to_the_nearest_occurrence():
    context = '👍🏽 Ada, 王 Ada'
    first, second = context.index('Ada'), context.rindex('Ada')
    row = {'question': 'q', 'context': context, 'answer': 'Ada'}
    for start in (first, str(second)):
        read = with_references({**row, 'answer_start': start}, 'here')
        assert read['starts'] == [int(start)] and 'moved' not in read
    for start, nearest in ((first + 1, first), (second - 1, second), (-1, first), (99, second)):
        moved = with_references({**row, 'answer_start': start}, 'here')
        assert moved['starts'] == [nearest] and moved['moved'] == 1


@pytest.mark.parametrize(('row', 'message'), [
    ({'answer': 'Zoe'}, "the answer 'Zoe' is not part of the context"), ({}, "no 'answers' and no 'answer'"),
    ({'answer': 7}, 'an answer must be a text'), ({'answer': 'Ada', 'answer_start': 'x'}, 'answer_start must be'),
    ({'answer': 'Ada', 'answer_start': 0.5}, 'answer_start must be a whole number'),
    ({'answers': {'text': ['Ada'], 'answer_start': []}}, '1 answers and 0 values'),
])  # fmt: skip
def test_a_broken_row_names_its_place(row, message):
    with pytest.raises(Broken, match=f'line 7: .*{message}'):
        with_references({'question': 'q', 'context': CONTEXT, **row}, 'line 7')


def test_broken_rows_can_be_left_out(tmp_path):
    (tmp_path / 'a.csv').write_text('question,context,answer\nq,Ada,Bela\nq,Ada,Ada\n')
    with pytest.raises(Broken, match="line 2: the answer 'Bela'"):
        list(question_rows(opened(tmp_path / 'a.csv', 'csv'), 'train'))
    rows = question_rows(opened(tmp_path / 'a.csv', 'csv', on_error='skip'), 'train')
    assert len(rows) == 1 and len(rows.skipped) == 1


def test_all_questions_of_a_context_stay_in_one_split(tmp_path):
    lines = [f'q{number},"context {number // 4}",context' for number in range(80)]
    (tmp_path / 'a.csv').write_text('question,context,answer\n' + '\n'.join(lines) + '\n')
    settings = {'reader': 'csv', 'train': str(tmp_path / 'a.csv')}
    data = open_dataset(settings, ('question', 'context'), ignored=('question',))
    contexts = [{row['context'] for row in data.source(split)} for split in ('train', 'validation', 'test')]
    assert all(contexts) and not contexts[0] & contexts[1] and not contexts[0] & contexts[2]


def test_the_articles_of_squad_are_split_whole(tmp_path):
    def file(count):
        articles = [
            {'title': f'T{number}', 'paragraphs': [{'context': CONTEXT, 'qas': [
                {'question': f'Who {number}?', 'id': f'{number}', 'answers': ANSWERS}]}]}
            for number in range(count)
        ]  # fmt: skip
        return json.dumps({'data': articles})

    (tmp_path / 'dev-v1.1.json').write_text(file(48))
    (tmp_path / 'train-v1.1.json').write_text(file(30))
    titles = {split: [row['title'] for row in squad.open(folder=str(tmp_path)).source(split)]
              for split in ('train', 'validation', 'test')}  # fmt: skip
    assert [len(rows) for rows in titles.values()] == [35, 3, 10] and titles['test'][0] == 'T38'
    full = squad.open(part='full', folder=str(tmp_path))
    assert [len(full.source(split)) for split in ('train', 'validation', 'test')] == [10, 20, 48]


@pytest.mark.parametrize('language', ['english', 'chinese'])
def test_invented_facts_are_answered_by_their_text(language):
    rows = facts.open(language, rows=40, unanswerable=0.3).source('train')
    read = [with_references(dict(row), 'here') for row in rows]
    assert not any('moved' in row for row in read)
    assert 0 < sum(not row['answers'] for row in read) < 40
    assert rows == facts.open(language, rows=40, unanswerable=0.3).source('train')
