"""A trained run as an object that predicts and evaluates."""

import collections
import functools
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
from etils import epath

from research.checkpoint.contents import verify_contents
from research.checkpoint.store import read_chosen
from research.core import sharding as sharding_module
from research.core.config import Config, MeshSettings
from research.core.evaluate import Evaluation, Evaluator, evaluate, make_evaluator
from research.core.predictions import encoded, predictions
from research.core.pytree import transfer
from research.core.state import eval_variables_from
from research.core.task import Raw, Task, Variables
from research.data.batches import requests
from research.errors import UserError, nearest
from research.inference.engine import Engine, samples_texts
from research.inference.requests import Unreadable, check_list, encode_named, open_files, read_requests
from research.inference.text_requests import TextRequest


class Trained(NamedTuple):
    """A trained run for use by another task: variables on the host, nothing compiled."""

    config: Config
    task: Task
    variables: Variables
    step: int


class Model(NamedTuple):
    """A task with trained variables on this machine's devices."""

    config: Config
    task: Task
    variables: Variables
    step: int
    measure: Evaluator
    mesh: jax.sharding.Mesh
    workdir: epath.Path
    engine: Callable[[], Engine] | None = None  # makes it at the first call; for a task that `generates`

    def __call__(self, request: Any, seed: int | None = None) -> Any:
        """The answer to one request: a dict of fields, a text, the path of a file, or an array.

        Raises:
          UserError: for an invalid request, or a file with several requests.
        """
        answers = self.predict([request], seed)
        if len(answers) != 1:
            raise UserError(f'{request} contains {len(answers)} requests: use predict([{request!r}])')
        return answers[0]

    def predict(self, raws: Sequence[Any], seed: int | None = None) -> list[Any]:
        """The decoded answer to each request, such as {'text': '...'} or {'image': array}.

        A request is a dict of fields, in which the path of a file may replace its content; a text, a file or a folder,
        as for `--input`, which may contain several requests; or an array, for a task with one field.

        Raises:
          UserError: names the invalid request and field.
        """
        rows = [row for raw in raws for row in requests_from(self.task, raw)]
        return [self.task.decode(outputs) for _, outputs in self.answers(rows, seed)]

    def answers(
        self, raws: Sequence[Raw], seed: int | None = None, index: Sequence[int] | None = None,
        keep_errors: bool = False,
    ) -> Iterator[tuple[Raw, Any]]:  # fmt: skip
        """Yields (request, outputs of one example) in the order of the requests: `predict` without decoding.

        Files are opened batch by batch. The randomness of an answer depends on `seed` and its index, not on its batch.

        Args:
          raws: the requests, also those that `find_requests` could not read.
          seed: seed of sampled answers; None for that of the config.
          index: the index of each request, for a part of a larger list of requests; None for 0, 1, 2, ...
          keep_errors: yield (request, UserError) for an invalid request and go on, instead of raising the error.

        Raises:
          UserError: for an invalid request, without `keep_errors`.
        """
        seed = self.config.seed if seed is None else seed
        read = functools.partial(read_request, self.task)
        encode = functools.partial(encode_named, self.task.encode)
        if self.engine is not None and samples_texts(self.task):  # by the programs that a server uses: the same bits
            yield from self.texts(raws, seed, read, encode, index, keep_errors)
            return
        results = predictions(self.task, self.measure, self.variables, raws, seed, encode, 0, read, index, keep_errors)
        while True:
            with jax.set_mesh(self.mesh):  # set per step: a suspended generator must not keep it set
                result = next(results, None)
            if result is None:
                return
            yield result

    def texts(
        self, raws: Sequence[Raw], seed: int, read: Callable, encode: Callable, index: Sequence[int] | None,
        keep_errors: bool,
    ) -> Iterator[tuple[Raw, Any]]:  # fmt: skip
        """`answers` of a task that samples texts; they stay in order and grow together."""
        assert self.engine is not None
        opened = collections.deque()

        def examples() -> Iterator[Any]:
            for number, raw in enumerate(raws):
                row = encoded(self.task, raw, read, encode, keep_errors)
                opened.append(row.raw)
                request = TextRequest(seed=seed, index=number if index is None else index[number])
                yield row.error or (row.examples[0], request)

        for outputs in self.engine().answers(examples(), keep_errors):
            yield opened.popleft(), outputs

    def output_shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """The names and shapes of the outputs for one batch of requests, without computing them."""
        raws = list(self.task.examples[:1]) or [self.task.source('test')[0]]
        batch = requests(self.task.encode, raws, self.measure.batch_size)
        return jax.eval_shape(self.measure.predict, self.variables, batch, 0)

    def evaluate(self, split: str) -> Evaluation:
        """Evaluates a split: metrics, number of examples, seconds, and metrics that failed."""
        with jax.set_mesh(self.mesh):
            return evaluate(self.task, self.measure, self.variables, split)


def requests_from(task: Task, value: Any) -> Sequence[Raw]:
    """The requests in a dict of fields, a text, a path or an array.

    Raises:
      UserError: for a value of another type, or a text or file that the task does not read.
    """
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, (str, os.PathLike)):
        say = functools.partial(print, file=sys.stderr)  # standard output is for answers
        return read_requests(task.inputs, [os.fspath(value)], say)
    if len(task.inputs) == 1:
        return [{name: value for name in task.inputs}]
    raise UserError(f'a request is a dict of {", ".join(task.inputs)}, a text or a file, not {type(value).__name__}')


def read_request(task: Task, raw: Mapping[str, Any] | Unreadable) -> Mapping[str, Any]:
    """Opens the files of a request and checks its fields; raises the error of one that could not be read."""
    if isinstance(raw, Unreadable):
        raise raw.error
    return check_request(task, open_files(task.inputs, raw))


def check_request(task: Task, raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Checks the field names of a request, and returns it.

    Raises:
      UserError: for an unknown field (names the nearest), or a list that is too long or has unknown fields.
    """
    for name in raw:
        if name not in task.inputs:
            raise UserError(f'request field {name!r} is unknown; {nearest(name, task.inputs)}')
        if task.inputs[name].kind == 'list':
            check_list(name, raw[name], task.inputs[name])
    return raw


def read_trained(config: Config, workdir: epath.Path, build: Callable[[Config, epath.Path], Task]) -> Trained:
    """Reads a run with its final weights: averaged, best or newest, according to `config.train`.

    Raises:
      UserError: if the run has no intact checkpoint or its weights do not fit the config.
    """
    verify_contents(workdir)
    task = build(config, workdir / 'prepared')
    say = functools.partial(print, file=sys.stderr)  # standard output is for answers
    weights = read_chosen(workdir, bool(config.train.best), config.train.average_checkpoints, say)
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    variables, report = transfer(shapes, eval_variables_from(weights, workdir))
    if report.missing or report.misshapen:
        raise UserError(f'{workdir}: the weights do not fit the config\n{report}')
    return Trained(config, task, variables, int(weights['step']))


def load(config: Config, workdir: epath.Path, build: Callable[[Config, epath.Path], Task]) -> Model:
    """Loads a run onto this machine's devices.

    Raises:
      UserError: as `read_trained`.
    """
    _, task, host_variables, step = read_trained(config, workdir, build)
    mesh = sharding_module.make_mesh(MeshSettings(data=1, fsdp=-1))
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    shardings = sharding_module.state_shardings(shapes, mesh, config.mesh)
    variables = jax.tree.map(jax.device_put, host_variables, shardings)
    size = sharding_module.round_up(config.train.eval_batch_size or config.train.batch_size, mesh)
    measure = make_evaluator(task, config.seed, size, sharding_module.batch_sharding(mesh))
    engine = functools.cache(lambda: Engine(task, variables, mesh))
    return Model(config, task, variables, step, measure, mesh, workdir, engine)
