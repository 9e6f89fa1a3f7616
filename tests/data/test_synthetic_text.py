"""Made-up text: any vocabulary, nothing lost, the same every time."""

import pytest

from research.data.dataset import open_dataset
from research.data.sets import synthetic
from research.data.sets.synthetic import counted_tokenizer
from research.data.text.corpus import END, encode_text, read_documents
from research.errors import UserError


@pytest.mark.parametrize('vocabulary', [257, 320, 51200, 70000])
def test_tokenizers_have_the_size_asked_for_and_lose_nothing(vocabulary):
    tokenizer = counted_tokenizer(vocabulary)
    assert tokenizer.get_vocab_size() == vocabulary and tokenizer.token_to_id(END) == 0
    for text in ('bado kilu', 'Ärger <|endoftext|> \n\t 日本 🙂'):
        ids = encode_text(tokenizer, text)
        assert max(ids) < vocabulary and tokenizer.decode(ids, skip_special_tokens=True) == text


def test_the_text_is_the_same_every_time_and_as_long_as_asked():
    documents = read_documents(synthetic.open(3))
    assert documents == read_documents(synthetic.open(3))
    assert {len(texts) for texts in documents.values()} == {1}
    assert all(3000 <= len(texts[0]) < 6000 for texts in documents.values())
    assert len({texts[0] for texts in documents.values()}) == 3


def test_impossible_sizes():
    with pytest.raises(UserError, match='kilobytes must be above zero'):
        open_dataset({'name': 'synthetic', 'kilobytes': 0})
    with pytest.raises(UserError, match='257'):
        counted_tokenizer(256)
