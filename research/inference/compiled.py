"""The compiled programs of an engine, made ahead of time: calling one never compiles."""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.sharding import batch_sharding, replicated
from research.core.task import Generate
from research.errors import UserError
from research.inference import programs

BEAMS = 4  # of a search, if the task's own answers are sampled

class Programs:
    """The compiled programs of a model, each compiled when first used, or all by `compile`."""

    def __init__(self, generate: Generate, variables: Any, mesh: jax.sharding.Mesh, slots: int, share: float = 0.0):
        self.generate, self.variables, self.mesh = generate, variables, mesh
        self.capacity = generate.capacity or generate.limit
        self.example, longer = (self.prompts_of(tokens) for tokens in ((0,), (0, 0)))
        # A decoder reads the request itself; a target begins with a fixed number of tokens.
        width, grows = self.example['tokens'].shape[1], longer['tokens'].shape[1] > 1
        # A prefix-LM reads its prompt at once, because all of it attends to all of it.
        in_parts = grows and generate.extend is not None and 'prefix' not in self.example
        longest = min(self.capacity - 1, programs.PART) if in_parts else self.capacity - 1
        self.buckets = programs.bucket_sizes(longest) if grows else (width,)
        self.part_buckets = self.buckets if in_parts and longest == programs.PART else ()
        self.beams = (generate.decoding.beams if generate.decoding else 0) or BEAMS
        with jax.set_mesh(mesh):
            cache = jax.eval_shape(lambda v: generate.start(v, self.example, self.capacity), variables)
            _, logits = jax.eval_shape(generate.step, variables, cache, self.example['length'])
        self.vocabulary = logits.shape[-1]
        self.prefill_function = programs.make_prefill(generate, self.capacity, self.vocabulary)
        self.row = jax.eval_shape(self.prefill_function, variables, self.example)
        self.whole, ways = replicated(mesh), math.prod(mesh.shape[axis] for axis in ('data', 'fsdp'))
        self.slots = fitting(self.row, slots, share * memory_of(mesh.devices.flat[0])) if share else slots
        self.sharding = self.whole if self.slots % ways else batch_sharding(mesh)
        self.shapes = programs.empty_state(self.row, self.slots)
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
        for bucket in self.part_buckets:
            self.get('read', bucket)
        for name in ('zeros', 'insert', 'decode', 'search'):
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
        elif name == 'read':
            read = programs.make_read(self.generate, self.vocabulary)
            made = jax.jit(read, out_shardings=self.whole).lower(self.variables, row, of(1, bucket), of(1))
        elif name == 'search':
            prompts = {key: of(*value.shape) for key, value in self.example.items()}
            search = programs.make_search(self.generate, self.beams)
            prompts |= {'tokens': of(1, self.search_bucket)}
            made = jax.jit(search, out_shardings=self.whole).lower(self.variables, prompts, of(1))
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

    def next_part(
        self, prompts: Mapping[str, np.ndarray], row: programs.Row | None, known: int
    ) -> tuple[programs.Row, int]:
        """Reads a prompt [1, tokens], or the next part of a long one; returns its row and the tokens known now.

        Args:
          prompts: of one request.
          row: what was read so far; None: nothing.
          known: number of tokens that determine `row`; all of the prompt when it is read.
        """
        length = int(prompts['length'][0])
        if row is None:
            first = length if length <= self.buckets[-1] else programs.PART
            return self.prefill(prompts, first), first
        tokens = prompts['tokens'][0, known - 1 : min(known - 1 + programs.PART, length - 1)]
        padded, count = self.padded(tokens, self.part_buckets), np.array([len(tokens)], np.int32)
        return self.get('read', padded.shape[1])(self.variables, row, padded, count), known + len(tokens)

    def prefill(self, prompts: Mapping[str, np.ndarray], length: int) -> programs.Row:
        """Reads the first `length` tokens of a prompt, padded to their bucket."""
        tokens = self.padded(prompts['tokens'][0, :length], self.buckets)
        return self.get('prefill', tokens.shape[1])(self.variables, self.arrays(prompts, tokens, length))

    def search(self, prompts: Mapping[str, np.ndarray], max_tokens: int) -> np.ndarray:
        """Searches the best texts; see `programs.make_search`."""
        length = int(prompts['length'][0])
        tokens = self.padded(prompts['tokens'][0, :length], (self.search_bucket,))
        arrays = self.arrays(prompts, tokens, length)
        return np.asarray(self.get('search')(self.variables, arrays, np.array([max_tokens], np.int32)))

    def padded(self, tokens: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
        size = next(size for size in buckets if size >= len(tokens))
        return np.pad(np.asarray(tokens, np.int32), (0, size - len(tokens)))[None]

    def arrays(self, prompts: Mapping[str, np.ndarray], tokens: np.ndarray, length: int) -> dict[str, np.ndarray]:
        arrays = {name: np.asarray(prompts[name], np.int32) for name in self.example}
        return arrays | {'tokens': tokens, 'length': np.array([length], np.int32)}

    @property
    def search_bucket(self) -> int:
        return self.capacity - 1 if self.part_buckets else self.buckets[-1]

    def insert(self, state: programs.State, row: programs.Row, numbers: np.ndarray) -> programs.State:
        """Puts a row into a slot; the state is donated."""
        return self.get('insert')(state, row, numbers)

    def decode(self, state: programs.State, control: np.ndarray) -> tuple[programs.State, Any]:
        """Makes the next tokens; the state is donated."""
        return self.get('decode')(self.variables, state, control)


def fitting(row: Any, slots: int, memory: float) -> int:
    """At most `slots`, fewer if their rows would need more bytes than `memory`; at least one."""
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(row))
    return max(1, min(slots, int(memory / size)))


def memory_of(device: Any) -> float:
    """Bytes of memory of a device: always the same on a machine, as the number of slots must be."""
    stats = device.memory_stats() if device.platform != 'cpu' else None
    return stats['bytes_limit'] if stats else os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
