"""Images: the small residual network on Fashion-MNIST that provides the feature space of configs/fashion_gan.py.

    python -m launch.train --config=configs/fashion_features.py --workdir=runs/fashion_features

Trains on 55,000 images (fetched on first use); 5,000 are for validation. The 64 inputs of the last layer are the
features in which the Fréchet and kernel distances of the generators are measured; their signature includes the hash of
these weights.

Expected: test accuracy 88% to 90% (seed 0: 88.9%). For stronger classifiers see configs/fashion_resnet.py.
Time: 177 s on 2 CPU cores.
Variants: `:tiny` (for tests; scikit-learn's digits).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_classification', model='resnet', data='fashion_mnist')
    config.task.update(top=3)
    config.model.update(widths=(8, 16, 64))
    config.optimizer.model.update(learning_rate=4e-3, schedule='cosine', warmup_steps=50, weight_decay=0.01)
    config.train.update(epochs=2.0, batch_size=128, eval_batch_size=500, eval_every=430, checkpoint_every=430)
    config.expected = {'test': {'accuracy': (0.88, 0.90)}}
    return config


def tiny(config):
    """A few steps of a perceptron."""
    config.data = {'name': 'digits'}
    config.model = {'name': 'mlp', 'widths': (8,)}
    config.optimizer.model.warmup_steps = 2
    few_steps(config)
