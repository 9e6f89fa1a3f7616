r"""Genes: splice junctions, exon to intron (EI), intron to exon (IE) or neither (N) in the middle of 60 bases.

    python -m launch.train --config=configs/splice_sites.py --workdir=runs/splice_sites

Trains a convolution over one-hot bases (two layers, then a dense layer over all positions; 276,611 parameters) on 2,241
rows of UCI's splice junctions (fetched on first use). The 185 duplicates among the 3,190 rows stay in the split of
their original; the splits are stratified by class.

Expected: test error by class (635 rows) N 1% to 5.3%, EI 0.5% to 5.7%, IE 4% to 10.7% (seeds 0 to 2: N 2.1, 4.2, 3.3%;
EI 1.9, 1.3, 3.2%; IE 6.1, 8.8, 6.8%). Backpropagation in UCI's table: 5.29, 5.74, 10.75%, in tenfold cross-validation
over 1,000 rows, so with 900 for training.
Time: 27 CPU-seconds.
Variants: `:published` (900 training rows too: N 4.5, 5.4, 3.6%; EI 1.3, 4.5, 1.9%; IE 10.9, 8.8, 12.9%, mean for IE
10.9%, no better than UCI's), `:kmers` (a Transformer over windows of three letters), `:own` (your FASTA files), `:tiny`
(for tests).

    python -m launch.train --config=configs/splice_sites.py:own --workdir=runs/mine \
        --config.data.train='promoters.fa,background.fa' --config.task.length=200
"""

from research.core.config import base, few_steps


def get_config():
    config = base('sequence_classification', model='convolution', data='splice')
    config.optimizer.model.update(schedule='cosine', warmup_steps=50, weight_decay=0.01)
    config.train.update(
        epochs=12.0, batch_size=64, eval_batch_size=256, eval_every=35, checkpoint_every=140, best='loss',
    )  # fmt: skip
    config.expected = {'test': {'error_N': (0.01, 0.053), 'error_EI': (0.005, 0.057), 'error_IE': (0.04, 0.107)}}
    return config


def published(config):
    """As many training rows as in the published comparison."""
    config.data.examples = 900
    config.train.update(epochs=30.0, eval_every=15, checkpoint_every=150)
    config.expected = {}


def kmers(config):
    """A Transformer over windows of three letters."""
    config.task.kmer = 3
    config.model = {
        'name': 'transformer', 'width': 64, 'layers': 2, 'positions': 'learned', 'head_dropout': 0.2, 'dropout': 0.2,
    }  # fmt: skip
    config.expected = {}


def own(config):
    """Your own FASTA files, one per class; longer sequences keep their middle."""
    config.task.cut = 'both'
    config.data = {'reader': 'fasta', 'test_fraction': 0.2}
    config.expected = {}


def tiny(config):
    """A few steps on random sequences with planted motifs."""
    config.task.update(length=24)
    config.model.update(filters=(8,), hidden=8)
    config.data = {'name': 'motifs', 'examples': 240}
    few_steps(config, steps=6, eval_batch_size=32, eval_every=3, checkpoint_every=6)
