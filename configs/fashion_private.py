"""Images with differential privacy (DP-SGD): a perceptron on 10,000 images of Fashion-MNIST.

    python -m launch.train --config=configs/fashion_private.py --workdir=runs/fashion_private

Trains 102,000 parameters for 30 epochs on the first 10,000 images (fetched on first use) with a budget of epsilon 3 at
delta 1e-5. Needs `pip install -e '.[privacy]'`. The learning rate was chosen by validation accuracy, which epsilon does
not account for.

Expected: test accuracy 80% to 83.5% (two seeds: 81.5%, 81.7%; without privacy 85.7%; always one class: 10%).
Time: 194 s on 2 CPU cores.
Variants: `:public` (without privacy, 30 s), `:tiny` (for tests; scikit-learn's digits).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_classification', model='mlp', data='fashion_mnist')
    config.task.update(top=3)
    config.data.update(examples=10_000)
    config.model.update(widths=(128,), activation='tanh')
    config.methods = ('privacy',)
    config.privacy = {'clip': 1.0, 'epsilon': 3.0, 'delta': 1e-5, 'chunk': 16}
    config.optimizer.model.update(name='sgd', learning_rate=0.3)
    config.train.update(
        epochs=30.0, batch_size=1000, eval_batch_size=1000, sampling='poisson', log_every=10, eval_every=100,
        checkpoint_every=100,
    )  # fmt: skip
    config.expected = {'test': {'accuracy': (0.80, 0.835)}}
    return config


def public(config):
    """Without privacy, on shuffled epochs."""
    config.methods = ()
    config.optimizer.model.learning_rate = 0.1
    config.train.sampling = 'shuffle'
    config.expected = {'test': {'accuracy': (0.845, 0.87)}}


def tiny(config):
    """A few steps with a given noise multiplier: computing it from epsilon takes seconds."""
    config.data = {'name': 'digits'}
    config.model.widths = (16,)
    config.privacy.update(epsilon=0.0, noise_multiplier=1.0)
    few_steps(config, steps=8, batch_size=32, eval_batch_size=32, log_every=4, eval_every=4, checkpoint_every=0)
