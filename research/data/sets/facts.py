"""Questions about invented people, in English or Chinese, answered by a part of a short text; some cannot be answered.

Source: generated from word lists of this project. Licence: that of the project. Splits: seeds 0, 1 and 2.
"""

from typing import Annotated, Literal

import numpy as np

from research.data.dataset import DataSet
from research.errors import Fraction, PositiveInt, Range

NAMES = {
    'english': ('Ada Moreau', 'Bela Novak', 'Chidi Okoro', 'Dana Kim', 'Emil Sand', 'Farah Aziz', 'Goro Ito'),
    'chinese': ('王小明', '李芳', '张建国', '陈雨', '赵云飞', '孙丽', '周海'),
}
PLACES = {
    'english': ('Lisbon', 'Turku', 'Accra', 'New Ulm', 'Bergen', 'Quito'),
    'chinese': ('北京', '杭州', '西安', '哈尔滨', '成都', '厦门'),
}
WORKS = {
    'english': ('a baker', 'a ship builder', 'a teacher', 'a surgeon', 'a violinist'),
    'chinese': ('面包师', '造船工人', '老师', '医生', '小提琴家'),
}
SENTENCES = {
    'english': ('{name} was born in {year}.', '{name} grew up in {place}.', '{name} works as {work}.'),
    'chinese': ('{name}出生于{year}年。', '{name}在{place}长大。', '{name}的职业是{work}。'),
}
QUESTIONS = {
    'english': ('When was {name} born?', 'Where did {name} grow up?', 'What does {name} work as?'),
    'chinese': ('{name}是哪一年出生的？', '{name}在哪里长大？', '{name}的职业是什么？'),
}
KEYS = ('year', 'place', 'work')


def open(
    language: Literal['english', 'chinese'] = 'english',
    rows: PositiveInt = 600,
    people: Annotated[int, Range(1, 6)] = 2,
    unanswerable: Fraction = 0.0,
) -> DataSet:
    """Opens the set; a row is {'question', 'context', 'answer', 'answer_start'}.

    Args:
      language: of the texts.
      rows: of the training split; the other splits have a fifth.
      people: in one text, each with three sentences.
      unanswerable: fraction of questions about a person who is not in the text.
    """

    def source(split: str) -> list[dict]:
        seed = {'train': 0, 'validation': 1, 'test': 2}[split]
        rng = np.random.default_rng(seed)
        return [question(rng, language, people, unanswerable) for _ in range(rows if seed == 0 else max(rows // 5, 1))]

    return DataSet(source, f'questions on facts, {language}', fields=('question', 'context', 'answer'))


def question(rng: np.random.Generator, language: str, people: int, unanswerable: float) -> dict:
    """Draws one row."""
    names = [NAMES[language][number] for number in rng.permutation(len(NAMES[language]))[: people + 1]]
    sentences, answers = [], []
    for person, name in enumerate(names[:people]):
        values = {
            'name': name, 'year': str(rng.integers(1900, 2000)), 'place': str(rng.choice(PLACES[language])),
            'work': str(rng.choice(WORKS[language])),
        }  # fmt: skip
        for fact in range(3):
            sentence = SENTENCES[language][fact].format(**values)
            sentences.append((sentence, person, fact, sentence.index(values[KEYS[fact]], len(name))))
            answers.append(values[KEYS[fact]])
    joint, context, starts = ' ' if language == 'english' else '', '', {}
    for number in rng.permutation(len(sentences)):
        sentence, person, fact, position = sentences[number]
        starts[person, fact] = len(context) + position
        context += sentence + joint
    person, fact = int(rng.integers(people)), int(rng.integers(3))
    if rng.random() < unanswerable:
        asked = QUESTIONS[language][fact].format(name=names[people])
        return {'question': asked, 'context': context.strip(), 'answer': '', 'answer_start': None}
    asked = QUESTIONS[language][fact].format(name=names[person])
    answer = answers[3 * person + fact]
    return {'question': asked, 'context': context.strip(), 'answer': answer, 'answer_start': starts[person, fact]}
