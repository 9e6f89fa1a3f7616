"""Scores of a whole corpus of translations: BLEU and chrF by sacreBLEU, with the signatures that fix them."""

from collections.abc import Sequence
from typing import Literal

from research.extras import require

BleuTokenizer = Literal['13a', 'zh', 'char', 'intl', 'none']  # how sacreBLEU cuts detokenised text into words


def translation_scores(
    hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = '13a'
) -> dict[str, tuple[float, str]]:
    """Returns {name: (score from 0 to 100, signature)} of detokenised texts, one reference each.

    'bleu': Papineni et al. 2002, as Post 2018 (arXiv:1804.08771) fixes it; 'bleu_lowercase' the same without
    case; 'chrf': chrF2, character n-grams up to 6 (Popovic 2015).

    Args:
      hypotheses, references: as many of one as of the other, at least one.
      tokenizer: of BLEU: '13a' for most languages, 'zh' for Chinese, 'char' for each character.
    """
    scores = require('sacrebleu.metrics')  # half a second to import
    metrics = {
        'bleu': scores.BLEU(tokenize=tokenizer),
        'bleu_lowercase': scores.BLEU(tokenize=tokenizer, lowercase=True),
        'chrf': scores.CHRF(),
    }
    found = {}
    for name, metric in metrics.items():
        score = metric.corpus_score(list(hypotheses), [list(references)]).score
        found[name] = float(score), str(metric.get_signature())
    return found
