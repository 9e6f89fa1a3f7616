"""Times the gradients of a convolution outside of a loop, in one, and in a condition: ours against XLA's own.

    python -m benchmarks.convolution

One 3x3 convolution of 64 pictures of 14x14, 64 channels to 96, float32. Each time is the median of 5, the two
taken in turn; the ratio is XLA's over ours. On other devices than CPUs both are the same program.
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
    """Returns XLA's convolution, channels last."""
    return jax.lax.conv_general_dilated(x, kernel, *settings, dimension_numbers=LAYOUT)


def total(convolve: Callable, x, kernel):
    """Returns a number whose gradients are the convolution's, at outputs of either sign."""
    return jnp.sum(jnp.sin(convolve(x, kernel, (1, 1), 'SAME')))


def placed(slopes: Callable) -> dict[str, Callable]:
    """Returns the gradients as they are, in a loop of one turn, and in a condition."""

    def loop(x, kernel):
        return jax.lax.map(lambda part: slopes(part, kernel), x[None])

    def condition(x, kernel):
        return jax.lax.cond(jnp.sum(kernel) < jnp.inf, slopes, lambda *both: both, x, kernel)

    return {'plain': slopes, 'in a loop': loop, 'in a condition': condition}


def seconds(function: Callable, *args) -> float:
    """Returns how long one call takes."""
    start = time.perf_counter()
    jax.block_until_ready(function(*args))
    return time.perf_counter() - start


def main() -> None:
    """Prints milliseconds of both, and their ratio."""
    rng = np.random.default_rng(0)
    args = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((64, 14, 14, 64), (3, 3, 64, 96))]
    sides = {}
    for side, convolve in (('ours', convolution), ('xla', plain)):
        slopes = jax.grad(functools.partial(total, convolve), (0, 1))
        sides[side] = {name: jax.jit(each) for name, each in placed(slopes).items()}
    print(f'gradients on {jax.default_backend()}   ours ms     XLA ms   ratio')
    for name in sides['ours']:
        taken = {side: [] for side in sides}
        for turn in range(ROUNDS + 1):
            for side, functions in sides.items():
                once = seconds(functions[name], *args)
                if turn:  # the first compiles
                    taken[side].append(once * 1e3)
        ours, theirs = (float(np.median(taken[side])) for side in ('ours', 'xla'))
        print(f'{name:<17}{ours:11.1f}{theirs:11.1f}{theirs / ours:8.2f}')


if __name__ == '__main__':
    main()
