"""Predictions on Apache Beam: the lines of `launch.predict`, byte for byte, on any number of workers.

    handler = RunHandler(functools.partial(research.load, 'gs://bucket/run'), batch_size=64)
    rows | beam.Reshuffle() | RunInference(handler)        # rows: (place, request); results: `Answered`

The place of a request in the whole list decides its randomness, so neither batches nor workers change an answer.
"""

import functools
import heapq
import json
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from research.core.task import Input
from research.errors import UserError
from research.extras import require
from research.inference.answers import answer_lines, json_text
from research.inference.model import Model
from research.inference.requests import Request, Unreadable, find_requests

try:
    from apache_beam.ml.inference.base import ModelHandler
except ImportError:  # the extra is not installed: making a handler names it
    ModelHandler: Any = object

LOCAL_RUNNER = 'apache_beam.runners.portability.fn_api_runner.FnApiRunner'  # the default one is downloaded on first use


class Answered(NamedTuple):
    """The line of one request, its place in the list of requests, and its error message or ''."""

    place: int
    line: str
    error: str


class Part(NamedTuple):
    """A typed value or one file, and the places of its requests."""

    value: str
    first: int
    count: int


class Loaded:
    """Holds a model for Beam, which needs an object that can have weak references."""

    def __init__(self, model: Model):
        self.model = model


@functools.lru_cache(maxsize=1)
def load_once(pickled: bytes) -> Model:
    """The model that a pickled function loads; the pipeline in one process shares it with the program around it."""
    return pickle.loads(pickled)()


class RunHandler(ModelHandler):
    """Loads a run once for each worker process and answers batches of (place, request) as `Answered`.

    Args:
      load: returns the model; it is pickled, so it holds only values such as the path of the run.
      batch_size: the largest number of requests at once; best that of the config's `train.eval_batch_size`.
      seed: seed of sampled answers.
      folder: an existing folder that every worker can write, for pictures and sounds; '' describes them.
    """

    def __init__(self, load: Callable[[], Model], batch_size: int = 64, seed: int = 0, folder: str = ''):
        require('apache_beam')
        super().__init__(min_batch_size=1, max_batch_size=batch_size)
        self._load, self._seed, self._folder = pickle.dumps(load), seed, folder

    def load_model(self) -> Loaded:
        """Loads the run, once for each process."""
        return Loaded(load_once(self._load))

    def run_inference(
        self, batch: Sequence[tuple[int, Mapping[str, Any]]], model: Loaded, inference_args: Any = None
    ) -> Iterator[Answered]:
        """Yields the answer to each request of a batch; an invalid request is answered by its error."""
        del inference_args
        places, requests = zip(*batch, strict=True)
        folder = epath.Path(self._folder) if self._folder else None
        lines = answer_lines(model.model, requests, self._seed, folder, places)
        for place, line in zip(places, lines, strict=True):
            yield Answered(place, json_text(line.answer), line.error)


def parts_of(inputs: Mapping[str, Input], values: Sequence[str], say: Callable[[str], None]) -> list[Part]:
    """The parts of the typed values with their places; reads every file once to count its requests.

    Raises:
      UserError: as `find_requests`.
    """
    parts, first = [], 0
    for value in values:
        count = len(find_requests(inputs, [value], say))
        parts.append(Part(value, first, count))
        first += count
    return parts


def rows_of(inputs: Mapping[str, Input], part: Part) -> Iterator[tuple[int, Request | Unreadable]]:
    """Yields (place, request) of one part, on a worker.

    Raises:
      UserError: if the worker finds another number of requests than the program that started the pipeline.
    """
    requests = find_requests(inputs, [part.value], lambda text: None)
    if len(requests) != part.count:
        raise UserError(f'{part.value}: {len(requests)} requests on a worker, {part.count} where the pipeline started')
    yield from enumerate(requests, part.first)


def text_of(answered: Answered) -> str:
    """A line for a text file, with lone surrogates escaped as `launch.predict` does."""
    text = f'{answered.place}\t{json_text(answered.error)}\t{answered.line}'
    return text.encode('utf-8', 'backslashreplace').decode()


def answered_of(text: str) -> Answered:
    """The inverse of `text_of`."""
    place, error, line = text.rstrip('\n').split('\t', 2)
    return Answered(int(place), line, json.loads(error))


def predict(
    handler: RunHandler, inputs: Mapping[str, Input], parts: Sequence[Part], folder: epath.Path, options: Sequence[str]
) -> list[str]:
    """Runs the pipeline and writes answers.jsonl in the order of the requests; returns the error messages.

    Args:
      handler: answers the requests.
      inputs: the fields that the task reads.
      parts: from `parts_of`; the workers open the same files.
      folder: an existing folder that every worker can write.
      options: Beam's own options, such as '--runner=FlinkRunner'; by default the pipeline runs in this process.
    """
    import apache_beam as beam
    from apache_beam.ml.inference.base import RunInference
    from apache_beam.options.pipeline_options import PipelineOptions

    options = list(options)
    if not any(option.startswith('--runner') for option in options):
        options.append(f'--runner={LOCAL_RUNNER}')
    shards = folder / 'answers.parts'
    shards.mkdir(parents=True, exist_ok=True)
    for old in shards.glob('part-*'):
        old.unlink()
    with beam.Pipeline(options=PipelineOptions(options)) as pipeline:
        _ = (
            pipeline
            | 'parts' >> beam.Create(list(parts))
            | 'requests' >> beam.FlatMap(functools.partial(rows_of, dict(inputs)))
            | 'spread' >> beam.Reshuffle()
            | 'answers' >> RunInference(handler)
            | 'lines' >> beam.Map(text_of)
            | 'write' >> beam.io.WriteToText(str(shards / 'part'))
        )
    return merge(shards, folder / 'answers.jsonl')


def merge(shards: epath.Path, file: epath.Path) -> list[str]:
    """Writes the lines of all shards in order of their places, removes the shards, and returns the errors."""
    sorted_shards = [sorted(map(answered_of, read_lines(shard))) for shard in sorted(shards.glob('part-*'))]
    errors = []
    unfinished = file.with_name(f'{file.name}.unfinished')
    with unfinished.open('w') as output:
        for answered in heapq.merge(*sorted_shards):
            output.write(f'{answered.line}\n')
            errors += [answered.error] if answered.error else []
    unfinished.replace(file)
    shards.rmtree()
    return errors


def read_lines(file: epath.Path) -> list[str]:
    # Not splitlines, which also splits at other characters than line feeds.
    return [line for line in file.read_bytes().decode().split('\n') if line]
