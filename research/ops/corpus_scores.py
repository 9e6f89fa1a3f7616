"""Corpus scores of translations: BLEU and chrF by sacreBLEU, with their signatures."""

from collections.abc import Sequence
from typing import Literal

from research.extras import require

BleuTokenizer = Literal['13a', 'zh', 'char', 'intl', 'none']  # sacreBLEU's tokenizers of detokenized text


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = '13a'
) -> dict[str, tuple[float, str]]:
    """Scores detokenized texts with one reference each; returns {name: (score from 0 to 100, signature)}.

    'bleu': Papineni et al. 2002, as standardized by Post 2018 (arXiv:1804.08771); 'bleu_lowercase': the same for
    lowercased text; 'chrf': chrF2, character n-grams up to 6 (Popovic 2015).

    Args:
      hypotheses, references: of equal number, at least one.
      tokenizer: for BLEU: '13a' for most languages, 'zh' for Chinese, 'char' for each character.
    """
    scores = require('sacrebleu.metrics')  # the import takes half a second
    metrics = {
        'bleu': scores.BLEU(tokenize=tokenizer),
        'bleu_lowercase': scores.BLEU(tokenize=tokenizer, lowercase=True),
        'chrf': scores.CHRF(),
    }
    results = {}
    for name, metric in metrics.items():
        score = metric.corpus_score(list(hypotheses), [list(references)]).score
        results[name] = float(score), str(metric.get_signature())
    return results
