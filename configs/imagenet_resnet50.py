"""Images: ResNet-50 on ImageNet.

    python -m launch.prepare_data --name=imagenet2012     # once; needs TensorFlow, and ILSVRC2012's two tar files
    python -m launch.train --config=configs/imagenet_resnet50.py --workdir=gs://BUCKET/imagenet_resnet50

Expected: not measured; neither the data nor the accelerators were available here. Published: 76.40% accuracy (23.60%
error) for the center crop of the 50,000 validation images after 90 epochs (Goyal et al. 2017, arXiv:1706.02677, table
1, batches of 256; the same up to batches of 8,192). 25,557,032 parameters.
Published settings: SGD with Nesterov momentum 0.9, learning rate 0.1 per 256 rows with 5 epochs of warmup, weight decay
1e-4 on kernels only, the last norm of each block initialized to 0, crops of 8% to 100% of the area, flips; evaluation
on the central 224 of 256 pixels. Differences: cosine schedule instead of steps, no color jitter, bfloat16, channel
moments of 20,000 training images. The last 1% of the training images is the validation split and is only monitored; the
50,000 images are evaluated once, at the end, as 'test'.
Time: not measured.
Variants: `:resnet18` (11,689,512 parameters; published 69.76%, torchvision's weights), `:vit` (ViT-S/16 with
RandAugment and mixup; no published figure for these settings), `:tiny` (for tests; scikit-learn's digits).
"""

from research.core.config import base, few_steps


def get_config():
    config = base('image_classification', model='resnet')
    config.task.update(resized_crop=0.08, flip=True, center_crop=0.875, statistics=20000, top=5)
    config.data = {
        'name': 'imagenet2012', 'reader': 'tfds', 'train': 'train[:99%]', 'validation': 'train[99%:]',
        'test': 'validation', 'shape': (224, 224, 3),
    }  # fmt: skip
    config.model.update(
        widths=(256, 512, 1024, 2048), depths=(3, 4, 6, 3), stem='large', bottleneck=True, zero_init=True, unroll=8,
        dtype='bfloat16',
    )  # fmt: skip
    config.optimizer.model.update(
        name='sgd', learning_rate=0.4, schedule='cosine', warmup_steps=6200, nesterov=True, weight_decay=1e-4,
        decay=('*kernel',),
    )  # fmt: skip
    config.train.update(
        epochs=90.0, batch_size=1024, eval_batch_size=1024, log_every=100, eval_every=5000, checkpoint_every=2500,
        workers=16,
    )  # fmt: skip
    return config


def resnet18(config):
    """Two plain blocks a stage."""
    config.model.update(widths=(64, 128, 256, 512), depths=(2, 2, 2, 2), bottleneck=False)


def vit(config):
    """A small vision Transformer from scratch."""
    config.task.update(operations=2, mixup=0.2)
    config.model = {'name': 'vit', 'patch': 16, 'width': 384, 'layers': 12, 'heads': 6, 'dtype': 'bfloat16'}
    config.optimizer.model.update(name='adamw', learning_rate=1e-3, warmup_steps=10000, weight_decay=0.1, clip=1.0)


def tiny(config):
    """A few steps on scikit-learn's digits."""
    config.data = {'name': 'digits'}
    config.task.update(resized_crop=0.5, statistics=200)
    config.model.update(widths=(8,), depths=(1,), dtype='float32')
    config.optimizer.model.update(learning_rate=0.05, warmup_steps=2)
    few_steps(config, workers=0)
