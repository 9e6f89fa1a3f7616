"""Times the gradients of a convolution, plain, in a loop and in a conditional: ours against XLA's own.

    python -m benchmarks.convolution

One 3x3 convolution of 64 pictures of 14x14, 64 channels to 96, float32. Times are medians of 5,
measured alternately; the ratio is XLA's time over ours. Except on CPUs, both are the same program.
"""

import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from research.ops.convolution import convolution

LAYOUT = ('NHWC', 'HWIO', 'NHWC')
ROUNDS = 5


def plain(x, kernel, *settings):
    """XLA's convolution, channels last."""
    return jax.lax.conv_general_dilated(x, kernel, *settings, dimension_numbers=LAYOUT)


def total(convolve: Callable, x, kernel):
    """Scalar function of the convolution, whose gradients are timed."""
    return jnp.sum(jnp.sin(convolve(x, kernel, (1, 1), 'SAME')))


def contexts(gradients: Callable) -> dict[str, Callable]:
    """The gradients plain, in a loop of one iteration, and in a conditional."""

    def loop(x, kernel):
        return jax.lax.map(lambda part: gradients(part, kernel), x[None])

    def condition(x, kernel):
        return jax.lax.cond(jnp.sum(kernel) < jnp.inf, gradients, lambda *both: both, x, kernel)

    return {'plain': gradients, 'in a loop': loop, 'in a condition': condition}


def seconds(function: Callable, *args) -> float:
    """Time of one call."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def main() -> None:
    """Prints milliseconds of both, and their ratio."""
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((64, 14, 14, 64), (3, 3, 64, 96))]
    sides = {}
    for side, convolve in (('ours', convolution), ('xla', plain)):
        gradients = jax.grad(functools.partial(total, convolve), (0, 1))
        sides[side] = {name: jax.jit(function) for name, function in contexts(gradients).items()}
    print(f'gradients on {jax.default_backend()}   ours ms     XLA ms   ratio')
    for name in sides['ours']:
        times = {side: [] for side in sides}
        for number in range(ROUNDS + 1):
            for side, functions in sides.items():
                duration = seconds(functions[name], *args)
                if number:  # the first call compiles
                    times[side].append(duration * 1e3)
        ours, theirs = (float(np.median(times[side])) for side in ('ours', 'xla'))
        print(f'{name:<17}{ours:11.1f}{theirs:11.1f}{theirs / ours:8.2f}')


if __name__ == '__main__':
    main()
