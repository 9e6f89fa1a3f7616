"""Rules that map another library's tensor names to our parameters, and helpers to read its configs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from research.errors import UserError
from research.nn.transformer_settings import TransformerSettings

ACTIVATIONS = {  # theirs: ours
    'gelu': 'gelu',
    'gelu_new': 'gelu_tanh',
    'gelu_fast': 'gelu_tanh',
    'gelu_pytorch_tanh': 'gelu_tanh',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
}


class Rule(NamedTuple):
    """One tensor of theirs, and its location in our parameters.

    {} in `name` is the number of a layer; such tensors are stacked along a first axis. Several `paths` are concatenated
    along the last axis (queries, keys and values in one kernel). `form` is the layout of their tensor: as ours,
    'transposed' ([outputs, inputs]), a 'row' (with a leading axis of one), or a convolution of 'patches' ([outputs,
    channels, side, side]; ours takes pixels row by row, channels last).
    """

    name: str
    paths: tuple[str, ...]
    form: Literal['', 'transposed', 'row', 'patches'] = ''


class Family(NamedTuple):
    """An architecture of the hub: its `model_type`, settings, and names in both directions."""

    model_type: str
    settings: Callable[[Mapping[str, Any], set[str]], dict[str, Any]]  # config and names -> TransformerSettings'
    config: Callable[[TransformerSettings], dict[str, Any]]
    rules: Callable[..., Sequence[Rule]]  # (settings), or of pictures (settings, image)
    prefix: str = ''  # of the names of the bare model inside one with a head
    unused: tuple[str, ...] = ()  # patterns of tensors that repeat others or belong to other heads
    encoder_decoder: bool = False
    image: Callable[[Mapping[str, Any], set[str]], dict[str, Any]] | None = None  # config and names -> the picture
    head: tuple[Rule, ...] = ()  # of a classifier: to the parameters of `TextTransformer`
    image_config: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None


def linear(name: str, path: str, bias: bool = True) -> list[Rule]:
    """Rules of a linear layer: kernel [outputs, inputs] and bias."""
    kernel = Rule(f'{name}.weight', (f'{path}/kernel',), 'transposed')
    return [kernel, Rule(f'{name}.bias', (f'{path}/bias',))] if bias else [kernel]


def norm(name: str, path: str, bias: bool = True) -> list[Rule]:
    """Rules of a norm: scale and bias."""
    scale = Rule(f'{name}.weight', (f'{path}/scale',))
    return [scale, Rule(f'{name}.bias', (f'{path}/bias',))] if bias else [scale]


def table(name: str, path: str) -> Rule:
    """Rule of an embedding."""
    return Rule(f'{name}.weight', (f'{path}/embedding',))


def heads(name: str, path: str, theirs: Sequence[str], query_key_value: bool, out: bool) -> list[Rule]:
    """Rules of an attention layer; `theirs` are its parts: query, key, value and output."""
    ours, biases = ('query', 'key', 'value', 'out'), (query_key_value,) * 3 + (out,)
    rules = []
    for part, their_part, bias in zip(ours, theirs, biases, strict=True):
        rules += linear(f'{name}.{their_part}', f'{path}/{part}', bias)
    return rules


def activation(config: Mapping[str, Any], key: str) -> str:
    """Our name of their activation.

    Raises:
      UserError: for an unsupported activation.
    """
    if config.get(key) not in ACTIVATIONS:
        raise UserError(f'config.json: {key}={config.get(key)!r} is not supported; known: {", ".join(ACTIVATIONS)}')
    return ACTIVATIONS[config[key]]


def activation_of(settings: TransformerSettings) -> str:
    """Their name of our activation."""
    return {ours: name for name, ours in reversed(ACTIVATIONS.items())}[settings.activation]


def only(config: Mapping[str, Any], **allowed: Any) -> None:
    """Raises UserError if a key of config.json has another value than `allowed`, which we do not support."""
    for key, value in allowed.items():
        if config.get(key, value) not in (value, None):
            raise UserError(f'config.json: {key}={config[key]!r} is not supported, only {value!r}')
