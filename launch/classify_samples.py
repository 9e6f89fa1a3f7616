"""Classifies the samples of a trained generator with a trained classifier: class counts and confidence.

    python -m launch.classify_samples --generator=runs/digits_gan --classifier=runs/digits --count=1000
"""

import json

import numpy as np
from absl import flags

import launch.flags
import research

GENERATOR = flags.DEFINE_string('generator', '', 'The folder of a run that generates images.')
CLASSIFIER = flags.DEFINE_string('classifier', '', 'The folder of a run that classifies images.')
COUNT = flags.DEFINE_integer('count', 1000, 'Number of images.', lower_bound=1)
SEED = flags.DEFINE_integer('seed', 0, 'Seed of the images.', lower_bound=0, upper_bound=2**31 - 1)


def main(overrides: dict[str, str]) -> None:
    """Prints the count of each class and stores the result as judge.json in the generator's run."""
    from research.errors import UserError
    from research.inference.requests import blank_requests

    for flag in (GENERATOR, CLASSIFIER):
        if not flag.value:
            raise UserError(f'--{flag.name} is missing: name the folder of a run, for example runs/digits')
    generator, classifier = research.load(GENERATOR.value, overrides), research.load(CLASSIFIER.value)
    for model, field in ((generator, 'image'), (classifier, 'probability')):
        shapes = model.output_shapes()
        if field not in shapes:
            raise UserError(f'{model.workdir}: its answers contain {", ".join(shapes)}, but no {field!r}')
    if 'image' not in classifier.task.inputs:
        raise UserError(f'{classifier.workdir} reads {", ".join(classifier.task.inputs)}, but no image')
    images = [
        outputs['image']
        for _, outputs in generator.answers(blank_requests(generator.task, COUNT.value), SEED.value)
    ]
    answers = classifier.predict([{'image': image} for image in images])
    result = summarize([answer['label'] for answer in answers], [answer['probability'] for answer in answers])
    (generator.workdir / 'judge.json').write_text(json.dumps({**result, 'seed': SEED.value}, indent=2))
    print(text_of(result))


def summarize(labels: list, probabilities: list[float]) -> dict:
    """Computes counts per class, their entropy in bits, and the mean confidence."""
    names, counts = np.unique(labels, return_counts=True)
    shares = counts / counts.sum()
    return {
        'count': len(labels),
        'classes_seen': len(names),
        'counts': {str(name): int(count) for name, count in zip(names, counts, strict=True)},
        'entropy_bits': float((shares * -np.log2(shares)).sum()),
        'mean_confidence': float(np.mean(probabilities)),
    }


def text_of(result: dict) -> str:
    """Formats the result with a bar per class."""
    largest = max(result['counts'].values())
    bars = [f'  {name:>8} {count:5} {"#" * round(40 * count / largest)}' for name, count in result['counts'].items()]
    head = (
        f'{result["count"]} images, classes predicted: {result["classes_seen"]}, '
        f'entropy {result["entropy_bits"]:.2f} bits, mean confidence {result["mean_confidence"]:.3f}'
    )
    return '\n'.join([head, *bars])


if __name__ == '__main__':
    launch.flags.run(main)
