r"""Translation: captions from English to German (Multi30k) with a Transformer of 2.1 million parameters.

    python -m launch.train --config=configs/multi30k_translation.py --workdir=runs/multi30k

Packs 29,000 pairs (1.9 MB, fetched on first use) into 7,841 rows of 64 tokens per side (6.6% padding), trains for 2,000
steps of 32 rows, and translates test_2016_flickr with a beam of 5 and the mean of the last 5 checkpoints. The shape (4
layers, width 128, hidden 256, 4 heads) is the Transformer-tiny of Wu et al. 2021 (arXiv:2105.14462; BLEU 41.0 there,
with longer training). Needs `pip install -e '.[translation]'`.

Expected: BLEU 36 to 38.5 and chrF2 60 to 62 (seed 0: 37.2 and 61.0) after 8.2 epochs. The validation loss was still
falling: 4.23, 3.13, 2.57, 2.31, 2.16, 2.06, 2.01, 1.96, 1.91, 1.87 every 200 steps.
Time: 59 minutes on 2 busy CPU cores.
Variants, which compose (`:gpu,de_en`):
- `:gpu`: wider, 4.1 million parameters, dropout 0.3, 12,000 steps of 64 rows, 98 epochs. Expected: BLEU 39 to 41 and
  chrF2 64 to 65.5 (seed 0: 39.99, lowercase 40.40, chrF2 64.5; validation 41.5). 81 steps/s on an H200 shared with two
  to eight other runs. Length penalties of 0.5, 1.5 and 2 gave 41.4, 41.6 and 41.8 on the validation split; 2 is worse
  on the test split, 39.4.
- `:de_en`, `:en_fr`: other directions (not measured).
- `:own`: your pairs.
- `:tiny`: for tests; this project's English and Chinese sentences.

    python -m launch.train --config=configs/multi30k_translation.py:own --workdir=runs/mine \
        --config.data.train=source=mine.en,target=mine.de --config.task.vocabulary=4000

From pretrained weights, with their shape and tokenizer (not measured): `--config.model.weights=t5-small
--config.task.prefix='translate English to German: ' --config.optimizer.model.learning_rate=1e-3`.
"""

import pathlib

from research.core.config import base, few_steps

ROOT = pathlib.Path(__file__).parent.parent


def get_config():
    config = base('translation', data='multi30k')
    config.task.update(
        vocabulary=6000,
        examples=(
            'A man in a blue shirt is standing on a ladder cleaning a window.',
            'Two dogs run through the snow.',
            'A little girl climbing into a wooden playhouse.',
        ),
    )  # fmt: skip
    config.model.update(
        hidden_width=256, activation='relu', positions='sinusoidal', embedding_scale=True, query_key_value_bias=True,
        output_bias=True, feed_forward_bias=True, dropout=0.1, embedding_dropout=0.1,
        initial_scale=128**-0.5,  # times the embedding's scale sqrt(128): inputs have standard deviation 1
    )  # fmt: skip
    config.optimizer.model.update(
        learning_rate=4e-3, schedule='inverse_sqrt', warmup_steps=400, b2=0.98, eps=1e-9, weight_decay=1e-4, clip=1.0,
    )  # fmt: skip
    config.train.update(
        steps=2000, eval_batch_size=64, log_every=20, eval_every=200, checkpoint_every=100, keep_last=5,
        average_checkpoints=5, sample_every=1000,
    )  # fmt: skip
    config.expected = {'test': {'bleu': (36.0, 38.5), 'chrf': (60.0, 62.0)}}
    return config


def gpu(config):
    """For a GPU: a width of 192, dropout 0.3, 4,096 tokens a batch and six times the steps."""
    config.model.update(
        width=192, heads=6, hidden_width=384, dropout=0.3, embedding_dropout=0.3, initial_scale=192**-0.5,
    )  # fmt: skip
    config.optimizer.model.update(learning_rate=3e-3, warmup_steps=2000)
    config.train.update(
        steps=12000, batch_size=64, eval_batch_size=256, eval_every=400, checkpoint_every=400, keep_last=10,
        average_checkpoints=10,
    )  # fmt: skip
    config.expected = {'test': {'bleu': (39.0, 41.0), 'chrf': (64.0, 65.5)}}


def de_en(config):
    """From German into English."""
    config.task.update(examples=('Zwei Hunde rennen durch den Schnee.',))
    config.data.update(source='de', target='en')
    config.expected = {}


def en_fr(config):
    """From English into French."""
    config.data.update(target='fr')
    config.expected = {}


def own(config):
    """Your own pairs."""
    config.task.update(examples=())
    config.data = {'reader': 'lines'}
    config.expected = {}


def tiny(config):
    """A few steps of a small model on this project's English and Chinese sentences."""
    own(config)
    sample = ROOT / 'research' / 'data' / 'sets' / 'samples' / 'chinese.tsv'
    config.task.update(
        vocabulary=800, length=32, row_length=64, beams=2, bleu_tokenizer='zh', score_count=4,
        examples=('Winter here is cold and long.', 'The rain stopped.'),
    )  # fmt: skip
    config.model.update(
        width=16, layers=2, heads=2, hidden_width=16, initial_scale=0.25, scan=True,
        query_key_value_bias=False,  # a key bias has zero gradient; Adam would amplify its rounding errors
    )  # fmt: skip
    config.data = {'reader': 'tsv', 'train': str(sample), 'fields': 'english:source,text:target'}
    few_steps(config, batch_size=8, eval_batch_size=8, sample_every=2, keep_last=2, average_checkpoints=2)
