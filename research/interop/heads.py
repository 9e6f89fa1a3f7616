"""The trained classification head of a published text encoder: reading it, and the order of its classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.errors import UserError
from research.interop.checks import damaged
from research.interop.files import Tensors, locate
from research.interop.names import Family
from research.interop.weights import family_of
from research.ops import paths


def read_labels(family: Family, config: Mapping[str, Any], names: Mapping[str, str], file: Any) -> list[str]:
    """The classes of a trained head in its order, from id2label of config.json; [] without a head or names.

    Args:
      family: of the weights.
      config: config.json.
      names: {tensor name in the rules: name in the files}.
      file: config.json's path, for messages.
    """
    labels = config.get('id2label')
    if not family.head or not isinstance(labels, Mapping) or not {rule.name for rule in family.head} <= set(names):
        return []
    with damaged(file):
        return [str(labels[key]) for key in sorted(labels, key=int)]


def order_of(labels: Sequence[str], classes: Sequence[str]) -> list[int] | None:
    """The number of each of `classes` among `labels`; None if they are not the same names.

    Upper and lower case count as equal (NEGATIVE, negative), unless that makes two labels equal.
    """
    folded, wanted = ([name.casefold() for name in names] for names in (labels, classes))
    if len(set(folded)) < len(folded):
        folded, wanted = list(labels), list(classes)
    return [folded.index(name) for name in wanted] if labels and sorted(folded) == sorted(wanted) else None


def read_head(description: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    """Reads the trained head of weights.

    Args:
      description: what `pretrained.store` wrote.
      order: of the classes, as of `order_of`.

    Returns:
      Nested parameters of `TextTransformer`: 'head', and the pooler of 'encoder' where it belongs to the head.

    Raises:
      UserError: if the tensors are missing or have another shape.
    """
    folder = locate(description['name'], description['revision']).folder
    tensors, width = Tensors(folder), description['settings']['width']
    flat = {}
    for rule in family_of(description['family']).head:
        if rule.name not in tensors.files:
            raise UserError(f'{folder} has no {rule.name}, which it had when this run was prepared')
        path, tensor = rule.paths[0], tensors[rule.name]
        outputs = len(order) if path.startswith('head/') else width
        shape = [outputs, width] if path.endswith('/kernel') else [outputs]
        if list(tensor.shape) != shape:
            raise UserError(f'{folder}: {rule.name} has shape {list(tensor.shape)}, not {shape}')
        ours = tensor.T if path.endswith('/kernel') else tensor
        flat[path] = ours[..., list(order)] if path.startswith('head/') else ours
    return paths.unflatten_paths(flat)


def head_tensors(family: Family, params: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts the head in the parameters of a `TextTransformer` to named tensors: the inverse of `read_head`."""
    flat = paths.flatten_paths(params)
    tensors = {rule.name: np.asarray(flat[rule.paths[0]]) for rule in family.head}
    return {name: tensor.T if tensor.ndim == 2 else tensor for name, tensor in tensors.items()}
