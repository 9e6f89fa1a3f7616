"""The answer to a question from the spans that a model found in the windows of its context."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.data.text.question_windows import Windows
from research.ops.spans import EXCLUDED


def make_join(windows: Windows, count: int) -> Callable[..., dict[str, np.ndarray]]:
    """Makes `join`: the `count` best spans over all windows of a request, by raw score.

    Scores are compared before any softmax, which would make each window's best span look equally certain. A span that
    two windows share counts once, with its higher score. "No answer" has the lowest score of all windows: a window
    without the answer says little about the others.
    """

    def join(raw: Mapping[str, Any], outputs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        best: dict[tuple[int, int], float] = {}
        for number, output in enumerate(outputs):
            bounds = windows.bounds(raw, number, output['spans']).tolist()
            for (start, stop), score in zip(bounds, output['scores'].tolist(), strict=True):
                if score > EXCLUDED / 2:
                    best[start, stop] = max(score, best.get((start, stop), score))
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:count]
        return {
            'context': np.array(raw['context']),
            'bounds': np.array([bounds for bounds, _ in ranked], np.int64).reshape(-1, 2),
            'scores': np.array([score for _, score in ranked], np.float64),
            'none': np.array(min(float(output['none']) for output in outputs)),
        }

    return join


def make_decode(none_margin: float | None) -> Callable[[Mapping[str, np.ndarray]], dict[str, Any]]:
    """Makes `decode`: the answer, its bounds in code points, its score, and the best spans ('n_best').

    Probabilities are those of a softmax over the best spans and, if the answer may be missing, "no answer".

    Args:
      none_margin: the answer is '' if the score of "no answer" exceeds that of the best span by more; None: never.
    """

    def decode(outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        if 'context' not in outputs:  # of one window; its spans are positions of tokens
            return {'spans': np.asarray(outputs['spans']).tolist(), 'scores': np.asarray(outputs['scores']).tolist()}
        context, scores = str(outputs['context']), np.asarray(outputs['scores'], np.float64)
        none = float(outputs['none'])
        candidates = scores if none_margin is None else np.append(scores, none)
        weights = np.exp(candidates - candidates.max())
        probability = weights / weights.sum()
        ranked = zip(outputs['bounds'].tolist(), scores.tolist(), probability, strict=False)
        n_best = [
            {
                'answer': context[start:stop], 'start': start, 'stop': stop, 'score': round(score, 4),
                'probability': round(float(share), 6),
            }
            for (start, stop), score, share in ranked
        ]  # fmt: skip
        if none_margin is None:
            return {**n_best[0], 'n_best': n_best}
        empty = {'answer': '', 'start': None, 'stop': None, 'score': none, 'probability': float(probability[-1])}
        chosen = empty if none - scores[0] > none_margin else n_best[0]
        return {**chosen, 'no_answer_score': round(none, 4), 'n_best': n_best}

    return decode
