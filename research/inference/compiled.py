"""The compiled programs of an engine, made ahead of time: calling one never compiles."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.sharding import batch_sharding, replicated
from research.core.task import Generate
from research.errors import UserError
from research.inference import programs


class Programs:
    """The compiled programs of a model, each compiled when first used, or all by `compile`."""

    def __init__(self, generate: Generate, variables: Any, mesh: jax.sharding.Mesh, slots: int):
        self.generate, self.variables, self.mesh, self.slots = generate, variables, mesh, slots
        self.capacity = generate.capacity or generate.limit
        self.example, longer = (self.prompts_of(tokens) for tokens in ((0,), (0, 0)))
        # A decoder reads the request itself; a target begins with a fixed number of tokens.
        width, grows = self.example['tokens'].shape[1], longer['tokens'].shape[1] > 1
        self.buckets = programs.bucket_sizes(self.capacity - 1) if grows else (width,)
        self.whole = replicated(mesh)
        ways = math.prod(mesh.shape[axis] for axis in ('data', 'fsdp'))
        self.sharding = self.whole if slots % ways else batch_sharding(mesh)
        with jax.set_mesh(mesh):
            cache = jax.eval_shape(lambda v: generate.start(v, self.example, self.capacity), variables)
            _, logits = jax.eval_shape(generate.step, variables, cache, self.example['length'])
        self.vocabulary = logits.shape[-1]
        self.prefill_function = programs.make_prefill(generate, self.capacity, self.vocabulary)
        self.row = jax.eval_shape(self.prefill_function, variables, self.example)
        self.shapes = programs.empty_state(self.row, slots)
        self.compiled: dict[Any, Any] = {}

    def prompts_of(self, tokens: Sequence[int]) -> dict[str, np.ndarray]:
        """The prompts [1, ...] of a request in ids."""
        assert self.generate.encode_tokens and self.generate.prompts
        batch = {name: value[None] for name, value in self.generate.encode_tokens(tokens).items()}
        return {name: np.asarray(value, np.int32) for name, value in self.generate.prompts(batch).items()}

    def check(self, prompts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Checks the shapes of one prompt [1, ...] but for its number of tokens; raises UserError."""
        for name, value in self.example.items():
            shape = prompts[name].shape if name in prompts else None
            if shape != value.shape and name != 'tokens':
                raise UserError(f'the prompt has {name} of shape {shape}; the model reads {value.shape}')
        return prompts

    def compile(self) -> None:
        """Compiles all programs."""
        for bucket in self.buckets:
            self.get('prefill', bucket)
        for name in ('zeros', 'insert', 'decode'):
            self.get(name)

    def get(self, name: str, bucket: int = 0) -> Any:
        """The compiled program."""
        if (name, bucket) not in self.compiled:
            self.compiled[name, bucket] = self.build(name, bucket)
        return self.compiled[name, bucket]

    def build(self, name: str, bucket: int) -> Any:
        """Compiles a program ahead of time: calling it never compiles again."""
        state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.sharding), self.shapes)
        row = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.whole), self.row)

        def of(*shape: int) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=self.whole)

        if name == 'prefill':
            prompts = {key: of(*value.shape) for key, value in self.example.items()} | {'tokens': of(1, bucket)}
            made = jax.jit(self.prefill_function, out_shardings=self.whole).lower(self.variables, prompts)
        elif name == 'zeros':
            zeros = lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.shapes)  # noqa: E731
            made = jax.jit(zeros, out_shardings=self.sharding).lower()
        elif name == 'insert':
            numbers = of(len(programs.NUMBERS) + len(programs.RATES))
            made = jax.jit(programs.insert, donate_argnums=0, out_shardings=self.sharding).lower(state, row, numbers)
        else:
            decode = programs.make_decode(self.generate)
            shardings = (self.sharding, self.whole)
            jitted = jax.jit(decode, donate_argnums=1, out_shardings=shardings)
            made = jitted.lower(self.variables, state, of(self.slots + 1))
        return made.compile()

    def zeros(self) -> programs.State:
        """A state with all slots closed."""
        return self.get('zeros')()

    def prefill(self, prompts: Mapping[str, np.ndarray]) -> programs.Row:
        """Reads a prompt [1, tokens] of any length, padded to its bucket."""
        length = int(prompts['length'][0])
        bucket = next(size for size in self.buckets if size >= length)
        tokens = np.zeros((1, bucket), np.int32)
        tokens[0, :length] = prompts['tokens'][0, :length]
        arrays = {name: np.asarray(prompts[name], np.int32) for name in self.example} | {'tokens': tokens}
        return self.get('prefill', bucket)(self.variables, arrays)

    def insert(self, state: programs.State, row: programs.Row, numbers: np.ndarray) -> programs.State:
        """Puts a row into a slot; the state is donated."""
        return self.get('insert')(state, row, numbers)

    def decode(self, state: programs.State, control: np.ndarray) -> tuple[programs.State, Any]:
        """Makes the next tokens; the state is donated."""
        return self.get('decode')(self.variables, state, control)
