"""Writes a narrow Inception-v3 of random weights, and what the reference implementation makes of pictures by it.

    pip install -e '.[parity]'
    python tests/interop/make_inception_fixture.py

The reference is the package pytorch-fid with torchvision's blocks, in float32 on the CPU, all widths divided by 16.
"""

import pathlib

import numpy as np
import pytorch_fid.inception as reference
import torch
import torchvision.models.inception as blocks
from safetensors.numpy import save_file

FOLDER = pathlib.Path(__file__).parent / 'inception'
THINNER = 16


class Narrow(blocks.BasicConv2d):
    """A convolution with batch norm, of a sixteenth of the channels."""

    def __init__(self, inputs: int, outputs: int, **more):
        super().__init__(inputs if inputs == 3 else inputs // THINNER, outputs // THINNER, **more)


def network() -> torch.nn.Module:
    """Returns the reference with random weights, those of batch norm too, all of them float16 numbers."""
    blocks.BasicConv2d = Narrow
    reference.load_state_dict_from_url = lambda *args, **more: None
    blocks.Inception3.load_state_dict = lambda self, state: None
    torch.manual_seed(0)
    model = reference.InceptionV3([3]).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith('conv.weight'):
            torch.nn.init.normal_(tensor, std=(2 / tensor[0].numel()) ** 0.5)
        elif name.endswith(('bn.weight', 'running_var')):
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
        elif name.endswith(('bn.bias', 'running_mean')):
            torch.nn.init.normal_(tensor, std=0.2)
        if tensor.is_floating_point():
            tensor.copy_(tensor.half().float())
    return model


if __name__ == '__main__':
    kept = {}
    whole = reference.fid_inception_v3
    reference.fid_inception_v3 = lambda: kept.setdefault('model', whole())
    model = network()
    tensors = {
        name: tensor.numpy().astype(np.float16)
        for name, tensor in kept['model'].state_dict().items()
        if name.startswith(('Conv2d', 'Mixed')) and tensor.is_floating_point()
    }
    tensors['fc.weight'] = np.zeros((1008, 1), np.float16)
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_file(tensors, FOLDER / 'inception.safetensors')
    made = {}
    for name, shape in {'small': (2, 28, 28, 3), 'large': (2, 320, 310, 3)}.items():
        pictures = np.random.default_rng(0).random(shape, np.float32)
        with torch.no_grad():
            features = model(torch.from_numpy(pictures.transpose(0, 3, 1, 2)))[0][:, :, 0, 0].numpy()
        made[name] = features
        print(name, features.shape, features.min(), features.max(), features.std())
    np.savez(FOLDER / 'features.npz', **made)
