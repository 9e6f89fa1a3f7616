"""BLEU and chrF of a corpus: equal to sacreBLEU's own functions and to BLEU written out, with signatures."""

import collections
import math

import pytest
import sacrebleu

from research.ops.corpus_scores import translation_scores

HYPOTHESES = ['A man rides a horse along the beach.', 'Two Dogs run in the snow', 'The cat sleeps.']
REFERENCES = ['A man is riding a horse along the beach.', 'two dogs run through the snow', 'The cat sleeps.']


def written_out(hypotheses, references):
    """BLEU of texts that are cut at spaces: Papineni et al. 2002, equations 1 to 3, smoothed as nothing is zero."""
    hits, counts, sizes = [0] * 4, [0] * 4, [0, 0]
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        sizes = [sizes[0] + len(hypothesis.split()), sizes[1] + len(reference.split())]
        for n in range(4):
            grams = [
                collections.Counter(zip(*(text.split()[i:] for i in range(n + 1)), strict=False))
                for text in (hypothesis, reference)
            ]
            hits[n] += sum((grams[0] & grams[1]).values())
            counts[n] += sum(grams[0].values())
    brevity = min(1.0, math.exp(1 - sizes[1] / sizes[0]))
    return 100 * brevity * math.exp(sum(math.log(hit / count) for hit, count in zip(hits, counts, strict=True)) / 4)


def test_scores_equal_the_reference():
    found = translation_scores(HYPOTHESES, REFERENCES)
    assert found['bleu'][0] == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score)
    assert found['chrf'][0] == pytest.approx(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score)
    assert found['bleu_lowercase'][0] > found['bleu'][0]
    plain = translation_scores(HYPOTHESES, REFERENCES, 'none')['bleu'][0]
    assert plain == pytest.approx(written_out(HYPOTHESES, REFERENCES))


def test_signatures_say_how():
    found = translation_scores(['天气很好。'], ['今天天气很好。'], 'zh')
    assert 'tok:zh' in found['bleu'][1] and 'case:mixed' in found['bleu'][1] and 'version:' in found['bleu'][1]
    assert 'case:lc' in found['bleu_lowercase'][1] and 'nc:6' in found['chrf'][1]
    assert found['bleu'][0] > 50  # characters are words here: a space would make one word of each sentence
    assert translation_scores(REFERENCES, REFERENCES)['bleu'][0] == pytest.approx(100)
