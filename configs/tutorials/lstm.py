r"""The tutorials' LSTM sentiment classifier, setting for setting.

    python -m launch.train --config=configs/tutorials/lstm.py --workdir=runs/lstm

Expected: test accuracy above 50%, always one class (1,821 sentences of SST-2); seed 0: 79.2%, validation 78.1%. Its
validation loss ends at 1.02, above that of class frequencies: after 10 epochs it is overconfident.
Time: 57 CPU-seconds for 10 epochs of 5,544 sentences.
Variants: `:own` (your texts), `:tiny` (for tests; this project's Chinese sentences).

Settings kept:
- Embedding, uniform in +-0.05, trained from scratch; SpatialDropout1D 0.4: drops a feature in all words.
- LSTM of 64 units, dropout 0.2 and recurrent dropout 0.2, with masks drawn once per text and constant over time;
  Keras's defaults: tanh and sigmoid, Glorot-uniform kernel, orthogonal recurrent kernel, bias 0, forget bias 1; only
  the last state is used.
- One sigmoid unit, Glorot-uniform, binary cross-entropy (here the softmax of (0, z), which is the same number).
- Adam: learning rate 0.001, betas 0.9 and 0.999, epsilon 1e-7; batches of 32, 10 epochs, no schedule, the last weights
  are the result.
- Texts as in Keras's Tokenizer and pad_sequences: lowercase, no punctuation, split at spaces; zeros on the left, the
  start of a longer text is cut; the LSTM reads the zeros too (no mask_zero).
- A validation split of 0.2.

Corrections:
- The vocabulary comes from the training split only; the tutorial fits its Tokenizer on all texts first.
- Out-of-vocabulary words become [unknown]; Keras's Tokenizer skips them, so that 'not XXX good' becomes 'not good'.
- Validation rows are chosen by a hash of each text, so that copies stay in one split; Keras takes the last fifth of the
  file, which is one class if the file is sorted.
- The test split is used neither for training nor for choices.
- Keras 2 drew one mask per gate, Keras 3 draws one for all four; here it is one.

Not specified by the tutorial, chosen here: 20,000 words, 128 features per word, 64 words per text.

    python -m launch.train --config=configs/tutorials/lstm.py:own --workdir=runs/mine \
        --config.data.train=mine.csv --config.data.fields=review:text,sentiment:label
"""

from research.core.config import base, few_steps


def get_config():
    config = base('text_classification', model='lstm', data='sst2')
    config.task.update(one_unit=True, clean=('lower', 'punctuation'), segment='space', cut='start', padding='left')
    config.model.update(skip_padding=False)
    config.data.update(validation_share=0.2)
    config.optimizer.model.update(name='adam', eps=1e-7)
    config.train.update(epochs=10.0, eval_batch_size=256, eval_every=173, checkpoint_every=865)
    return config


def own(config):
    """Your own texts, in two classes."""
    config.data = {'reader': 'csv', 'validation_fraction': 0.2}
    config.train.update(eval_every=100)
    config.expected = {}


def tiny(config):
    """A few steps on this project's Chinese sentences, as byte-level BPE."""
    config.task.update(tokens='bpe', vocabulary=300, length=16, clean=('unicode',))
    config.model.update(width=16, hidden=8)
    config.data = {'name': 'chinese', 'topics': 2}
    few_steps(config, steps=6, eval_batch_size=32, eval_every=3, checkpoint_every=6)
