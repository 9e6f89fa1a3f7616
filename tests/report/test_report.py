"""The report: complete, self-contained, escaped, and honest about what is missing or below its baseline."""

import base64
import hashlib
import html.parser
import io
import json
import re
import shutil
import subprocess

import jinja2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup
from PIL import Image

from research.report.charts import Series, decimate, heat_map, line_chart, log_ticks, nice_ticks, smooth
from research.report.html import ENVIRONMENT, number, render, tag
from research.report.metrics import Bar, bar, below_baseline, classes, panels, verdict
from research.report.page import write_report
from research.report.sections import spread

VOID = ('img', 'meta')
HOSTILE = '</pre><script>alert(1)</script><img src=x onerror=alert(2)> 中文 & "quoted"'


class Page(html.parser.HTMLParser):
    """Collects elements and text, and checks that every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], ''
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ('script', 'style'):
            self.text += data

    def all(self, name, class_=None):
        return [
            attributes
            for found, attributes in self.elements
            if found == name and (class_ is None or class_ in (attributes.get('class') or '').split())
        ]


def metric(value, baseline=None, better='higher', expected=None, passed=None, **more):
    fields = {'about': 'what it means', 'baseline_about': 'always the commonest class', 'verdict': ''}
    return {**fields, 'value': value, 'baseline': baseline, 'better': better, 'expected': expected,
            'passed': passed, **more}  # fmt: skip


def entry(split, **metrics):
    signature = {'split': split, 'examples': 180, 'seed': 0, 'settings': {'task': {'name': 'toy', 'top': 5}}}
    return {'step': 1000, 'metrics': metrics, 'signature': signature}


def png(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 24, 3), value, np.uint8)).save(buffer, 'PNG')
    return buffer.getvalue()


def array(name, shape, trained=True):
    size = int(np.prod(shape))
    return {'name': name, 'collection': 'params', 'shape': shape, 'dtype': 'float32', 'trained': trained,
            'size': size, 'bytes': 4 * size, 'bytes_per_device': 4 * size, 'sharding': []}  # fmt: skip


def describe_groups():
    rows = [
        {'group': group, 'path': path, 'arrays': [array('kernel', shape, group != 'teacher')],
         'parameters': int(np.prod(shape)), 'bytes': 4 * int(np.prod(shape))}
        for group, path, shape in (
            ('discriminator', 'blocks/mlp', [3, 8, 8]),
            ('generator', 'head', [8, 2]),
            ('teacher', 'head', [8, 2]),
        )
    ]  # fmt: skip
    totals = {'trained': 208, 'frozen': 16, 'state': 0, 'bytes': 896, 'bytes_per_device': 896}
    return {
        'task': 'toy', 'devices': {'platform': 'cpu', 'kind': 'cpu', 'count': 8, 'processes': 1, 'mesh': {}},
        'layers': {'rows': rows, 'totals': totals}, 'classes': ['zero', 'one', HOSTILE],
        'example': {'raw': {'text': HOSTILE, 'label': 3}, 'encoded': {'label': 'int32: 3'}},
        'data': {'train': 1437, 'test': 180}, 'steps': {'steps': 1000, 'epochs': 44.5},
        'memory': {'arguments': 4096, 'outputs': 4096, 'temporaries': 10, 'aliased': 4096, 'total': 4106,
                   'limit': 0, 'estimate': True},
        'flops': {'total': 3400000, 'matrix': 3000000, 'notes': ['a while loop counts one turn']},
        'flow': {'inputs': {'text': 'text'}, 'batch': {'tokens': 'int32 [64, 128]'},
                 'groups': {'discriminator': 'adam', 'generator': 'adam, every 3 steps'}, 'gradients': [],
                 'methods': ['lora'], 'has': ['render', 'finalize']},
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    """The folder of a run with two groups and everything that a report can show."""
    folder = tmp_path / 'a_run'
    folder.mkdir()
    confusion = [[5, 1, 0], [0, 6, 0], [0, 0, 6]]
    better, worse = (f'{word} than always the commonest class' for word in ('better', 'WORSE'))
    test = entry(
        'test',
        accuracy=metric(0.9833, 0.1, expected=[0.97, 1.0], passed=True, verdict=better),
        loss=metric(2.5, 2.3, 'lower', verdict=worse),
        confusion=metric(confusion, better=''),
        f1_per_class=metric([0.9, 0.92, 1.0]),
    )  # fmt: skip
    (folder / 'metrics.json').write_text(
        json.dumps({'validation': entry('validation', loss=metric(1.5)), 'test': test})
    )
    records = [
        {'step': step, 'kind': 'train', 'values': {
            'discriminator/loss': 2.0 / step, 'generator/loss': 1.0 + step, 'generator/learning_rate': 1e-3}}
        for step in range(1, 101)
    ]  # fmt: skip
    records += [{'step': step, 'kind': 'validation', 'values': {'loss': 3.0 / step}} for step in (50, 100)]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(each) + '\n' for each in records) + '{"torn')
    (folder / 'description.json').write_text(json.dumps(describe_groups()))
    stages = {'compile': 3.2, 'train': 60.0}
    environment = {'command': 'python -m launch.train', 'python': '3.11', 'stages': stages, 'seconds': 70}
    (folder / 'environment.json').write_text(json.dumps(environment))
    config = {'task': {'name': 'toy'}, 'optimizer': {'generator': {'decay': ['*kernel'], 'clip': 1.0}},
              'train': {'best': 'accuracy'}, 'methods': [], 'seed': 7}  # fmt: skip
    (folder / 'config.json').write_text(json.dumps(config))
    for step in (0, 500, 1000):
        samples = folder / 'samples' / f'{step:08d}'
        samples.mkdir(parents=True)
        (samples / 'generated.png').write_bytes(png(step // 4))
        examples = [
            {'input': 'def ', 'output': {'text': HOSTILE}},
            {'input': {'n': 1}, 'output': [{'a': 0.5}]},
        ]
        (samples / 'examples.json').write_text(json.dumps(examples))
    return folder


def read(folder):
    path = write_report(folder)
    text = path.read_text()
    assert path.name == 'report.html' and text.startswith('<!doctype html>\n<html lang="en">')
    return Page(text)


def test_a_report_shows_everything_that_the_folder_holds(run):
    page = read(run)
    for text in (
        'a_run', 'PASS', '0.9833', '0.97 to 1', 'always the commonest class', 'finalize',
        '180', 'task.name=toy', 'blocks/mlp', 'kernel 3 × [8×8]', 'adam, every 3 steps', 'lora',
        '3.40 MFLOP', 'an estimate on CPU', 'python -m launch.train', '1 min 10 s in total', '*kernel',
        'Made by Tessera', 'zero predicted as one: 1', 'frozen', 'held fixed', '44.5 epochs',
    ):  # fmt: skip
        assert text in page.text, text
    assert [each['id'] for each in page.all('section')] == [
        'metrics', 'curves', 'classes', 'samples', 'flow', 'model', 'config', 'environment',
    ]  # fmt: skip
    assert {each['href'][1:] for each in page.all('a')} == {each['id'] for each in page.all('section')}


def test_the_times_of_earlier_starts_are_shown(run):
    file = run / 'environment.json'
    file.write_text(json.dumps({**json.loads(file.read_text()), 'seconds_before': 50.0}))
    text = read(run).text
    assert '2 min 00 s' in text and 'total time, earlier starts included' in text
    assert '1 min 10 s in total (of the last start)' in text


def test_a_report_needs_nothing_from_elsewhere(run):
    page = read(run)
    for name, attributes in page.elements:
        assert name not in ('link', 'iframe', 'object', 'embed', 'base')
        if 'src' in attributes:
            assert attributes['src'].startswith('data:image/png;base64,')
        if 'href' in attributes:
            assert attributes['href'].startswith('#')
        assert not any(key.startswith('on') for key in attributes)
    text = (run / 'report.html').read_text()
    assert 'url(' not in text and '@import' not in text and not re.search(r'(?<!alt=)"https?://', text)


def test_its_policy_allows_its_own_script_and_nothing_else(run):
    page = read(run)
    (policy,) = (each['content'] for each in page.all('meta') if each.get('http-equiv'))
    assert "default-src 'none'" in policy and 'media-src data:;' in policy
    text = (run / 'report.html').read_text()
    (script,) = re.findall(r'<script>(.*?)</script>', text, re.DOTALL)
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy


def test_text_of_a_model_stays_text(run):
    page = read(run)
    assert page.text.count(HOSTILE) >= 4  # three samples, the example, and a class name
    assert len([each for each in page.all('script') if not each]) == 1
    assert all('onerror' not in each for each in page.all('img'))


def test_pictures_are_inside_with_their_size_and_words(run):
    pictures = read(run).all('img')
    assert [each['alt'] for each in pictures] == [
        f'generated at step {step}' for step in ('0', '500', '1,000')
    ]
    for each, step in zip(pictures, (0, 500, 1000), strict=True):
        data = base64.b64decode(each['src'].partition(',')[2])
        assert data == png(step // 4) and (each['width'], each['height']) == ('24', '8')


def test_drawings_and_frames_are_figures_for_a_screen_reader(run):
    page = read(run)
    assert len(page.all('figure', 'chart')) >= 2 and len(page.all('figure', 'confusion')) == 1
    assert len([each for each in page.all('figure') if 'data-step' in each]) == 6  # 3 pictures, 3 texts
    assert len(page.all('figcaption')) == len(page.all('figure'))


def test_every_drawing_has_words(run):
    page = read(run)
    assert len(page.all('svg')) >= 4
    assert all(each['role'] == 'img' and each['aria-label'] for each in page.all('svg'))
    (loss, *_) = (each['aria-label'] for each in page.all('svg'))
    assert 'discriminator from 2 to 0.02' in loss and 'validation from 0.06 to 0.03' in loss


FILES = {
    'metrics.json': 'no metrics.json',
    'metrics.jsonl': 'no metrics.jsonl',
    'description.json': 'no description.json',
    'environment.json': 'no environment.json',
    'config.json': 'no config.json',
    'samples': 'no samples folder',
}


@pytest.mark.parametrize('name', FILES)
def test_a_missing_file_is_named(run, name):
    path = run / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert FILES[name] in read(run).text


def test_metrics_of_runs_before_version_0_2_are_shown(run):
    stored = json.loads((run / 'metrics.json').read_text())
    (run / 'metrics.json').unlink()
    older = {split: {**values, 'figures': values.pop('metrics')} for split, values in stored.items()}
    (run / 'figures.json').write_text(json.dumps(older))
    page = read(run)
    assert 'PASS' in page.text and '0.9833' in page.text and 'no metrics.json' not in page.text


def test_an_empty_folder_has_a_report(tmp_path):
    page = read(tmp_path)
    assert 'Not measured yet' in page.text and all(sentence in page.text for sentence in FILES.values())


@pytest.mark.parametrize('text', ['{broken', '[1, 2]', '', '\ud800'.encode('utf-8', 'surrogatepass')])
def test_a_broken_file_is_named(run, text):
    (run / 'config.json').write_bytes(text if isinstance(text, bytes) else text.encode())
    (run / 'samples' / '00000500' / 'examples.json').write_text('{')
    page = read(run)
    assert 'config.json could not be read' in page.text and 'PASS' in page.text


@pytest.mark.parametrize('name', ['classes.json', 'labels.json', 'columns.json'])
def test_class_names_may_come_from_what_was_prepared(run, name):
    description = {**describe_groups(), 'classes': []}
    (run / 'description.json').write_text(json.dumps(description))
    (run / 'prepared').mkdir()
    (run / 'prepared' / name).write_text(json.dumps({'classes': ['ant', 'bee', 'cat']}))
    assert 'ant predicted as bee: 1' in read(run).text


def text_of(metrics, best=''):
    return ' '.join(Page(render('verdict.html', verdict=verdict(metrics, best))).text.split())


def test_verdicts_in_words():
    passed = {'test': entry('test', accuracy=metric(0.98, 0.1, expected=[0.97, 1.0], passed=True))}
    assert text_of(passed).startswith(
        'PASS Accuracy on the test split is 0.98, inside the expected 0.97 to 1, better'
    )
    failed = {'test': entry('test', accuracy=metric(0.9, 0.1, expected=[0.97, 1.0], passed=False))}
    assert 'FAIL' in text_of(failed) and 'outside the expected 0.97 to 1' in text_of(failed)
    poor = {'test': entry('test', loss=metric(2.5, 2.3, 'lower'))}
    assert 'WORSE THAN BASELINE' in text_of(poor) and 'is worse than its baseline, 2.3 (always the' in text_of(
        poor
    )
    plain = {'validation': entry('validation', loss=metric(2.5), accuracy=metric(0.5))}
    assert text_of(plain, 'accuracy').startswith('MEASURED Accuracy on the validation split is 0.5')
    assert 'Not measured' in text_of({})


def test_a_run_may_pass_and_still_say_what_is_below_its_baseline():
    metrics = {'test': entry('test', a=metric(1.0, expected=[1.0, 1.0], passed=True), b=metric(0.1, 0.1))}
    assert 'PASS' in text_of(metrics) and 'B on test, 0.1, is no better than its baseline' in text_of(metrics)
    assert 'the expected 1' in text_of(metrics)


def test_below_baseline_knows_the_direction():
    assert not below_baseline(metric(0.2, 0.1)) and below_baseline(metric(0.1, 0.1))
    assert not below_baseline(metric(0.1, 0.2, 'lower')) and below_baseline(metric(0.3, 0.2, 'lower'))
    assert not below_baseline(metric(0.1, 0.2, '')) and not below_baseline(metric(0.1))
    assert below_baseline(metric(float('nan'), 0.2))


def test_a_bar_compares_with_baseline_and_range():
    row = metric(0.9, 0.1, expected=[0.8, 1.0], passed=True)
    assert bar(row) == Bar(90.0, 10.0, 80.0, 100.0, False)
    assert bar(metric(5.0, 10.0)) == Bar(50.0, 100.0, None, None, True)
    assert bar(metric(0.0, 0.0, 'lower')) == Bar(0.0, 0.0, None, None, True)
    assert bar(metric(0.9)) is None and bar(metric(-1.0, 2.0)) is None and bar(metric(float('nan'), 2.0)) is None


def test_classes_list_the_most_frequent_mistakes_first():
    split = entry('test', confusion=metric([[5, 1, 2], [0, 6, 0], [7, 0, 6]]), f1_per_class=metric([0.9, 2.0]))
    found = classes({'test': split}, ['ant', 'bee', 'cat'])
    assert found.confusions[0].mistakes == [('cat', 'ant', '7'), ('ant', 'cat', '2'), ('ant', 'bee', '1')]
    assert (found.confusions[0].right, found.confusions[0].total) == ('17', '27')
    assert found.columns == ['f1'] and found.rows == [('0', [0.9]), ('1', [2.0])]
    large = classes({'test': entry('test', confusion=metric(np.eye(121, dtype=int).tolist()))}, [])
    assert large.confusions[0].drawing is None
    assert 'confusion of 121 classes is too large' in render('classes.html', classes=large)
    assert classes({'test': entry('test', accuracy=metric(1.0), odd=metric([[1, 2], [3]]))}, []) is None


def test_panels_put_groups_and_splits_of_a_metric_together():
    records = [
        {'step': 1, 'kind': 'train', 'values': {'g/loss': 1.0, 'd/loss': 2.0, 'lr': 0.1, 'a/b': 1.0}},
        {'step': 2, 'kind': 'train', 'values': {'g/loss': float('nan'), 'd/loss': 1.0}},
        {'step': 2, 'kind': 'validation', 'values': {'loss': 3.0}},
        {'step': 2, 'kind': 'validation', 'values': {'loss': 4.0}},  # measured again after a restart
        {'step': 2, 'kind': 'test (chosen)', 'values': {'loss': 5.0}},
    ]
    charts = panels(records, ['g', 'd'])
    assert list(charts) == ['loss', 'lr', 'a/b']
    curves = {curve.name: curve for curve in charts['loss']}
    assert curves['g'].points == [(1, 1.0)] and curves['d'].points == [(1, 2.0), (2, 1.0)]
    assert curves['validation'].points == [(2, 4.0)] and curves['test (chosen)'].marks
    assert len({curve.color for curve in charts['loss']}) == 4


def test_decimation_keeps_peaks_and_order():
    points = [(step, float(np.sin(step / 50))) for step in range(10_000)]
    points[7777] = (7777, 100.0)
    kept = decimate(points, 800)
    assert len(kept) <= 800 and kept == sorted(kept) and (7777, 100.0) in kept
    assert kept[0] == points[0] and kept[-1] == points[-1]
    assert decimate(points[:10]) == points[:10]


def test_smoothing_is_a_mean_of_neighbours():
    points = list(enumerate(np.random.default_rng(0).random(50)))
    values = [value for _, value in smooth(points, 3)]
    assert np.isclose(values[20], np.mean([value for _, value in points[17:24]]))
    assert np.isclose(values[0], np.mean([value for _, value in points[:4]]))


@given(low=st.floats(-1e6, 1e6), size=st.floats(1e-6, 1e6))
@settings(max_examples=60, deadline=None)
def test_ticks_are_few_and_inside(low, size):
    high = low + size
    ticks = nice_ticks(low, high)
    assert ticks == sorted(ticks) and len(ticks) <= 12
    assert all(low - size / 100 <= tick <= high + size / 100 for tick in ticks)
    if low > 0:
        ticks = log_ticks(low, high)
        assert 1 <= len(ticks) <= 8 and ticks == sorted(ticks)


def drawn(name, values):
    chart = line_chart(name, [Series('train', 0, list(enumerate(values)))])
    return str(ENVIRONMENT.get_template('macros.html').module.chart(chart))


@pytest.mark.parametrize('values', [[1.0], [0.0, 0.0], [-1.0, 5.0], [1e9, 1e-9], [1e-9, 1e9], [3.0] * 200])
def test_a_chart_of_anything_is_a_drawing(values):
    chart = drawn('some_loss', values)
    assert 'nan' not in chart and 'inf' not in chart.replace('info', '')
    page = Page(chart)
    assert 'some loss' in page.text
    assert len(page.all('svg')) == (2 if values == [1e9, 1e-9] else 1)


def test_many_points_make_a_small_chart():
    noise = np.random.default_rng(0).random(100_000)
    assert len(drawn('loss', noise.tolist())) < 100_000


@pytest.mark.parametrize('count', [2, 30, 100])
def test_heat_maps_of_any_size(count):
    matrix = np.eye(count, dtype=int) * 5
    matrix[0, 1] = 1
    page = Page(heat_map(matrix.tolist(), [f'class {index}' for index in range(count)]))
    assert len(page.all('rect', 'right')) == count and len(page.all('rect', 'wrong')) == 1
    assert 'class 0 predicted as class 1: 1 (16.7%)' in page.text


def test_tags_escape_everything_that_is_not_markup():
    made = tag('g', '<b>', Markup('<i></i>'), [None, ('&', 3)], class_='a"b', font_size=3, title=None)
    assert made == '<g class="a&#34;b" font-size="3">&lt;b&gt;<i></i>&amp;3</g>'


def test_templates_escape_and_refuse_what_was_not_passed():
    assert ENVIRONMENT.from_string('{{ x }}{{ y }}').render(x='<', y=Markup('<')) == '&lt;<'
    with pytest.raises(jinja2.UndefinedError, match='missing'):
        ENVIRONMENT.from_string('{{ missing }}').render()


def test_numbers_as_people_read_them():
    values = (0.98333, 12345, 12345.678, 1e-5, 3.0, True, None, 'x', float('nan'), float('inf'))
    texts = ['0.9833', '12,345', '12,346', '1e-05', '3', 'True', '–', 'x', 'not a number', 'infinite']
    assert [number(value) for value in values] == texts


def test_steps_are_spread_with_both_ends():
    assert spread(range(5), 16) == [0, 1, 2, 3, 4]
    assert spread(range(101), 3) == [0, 50, 100]
    assert spread(range(5), 1) == [4]


@pytest.mark.slow
def test_a_browser_runs_its_script(run, tmp_path):
    browser = next(filter(None, map(shutil.which, ('chromium', 'google-chrome', 'chrome'))), None)
    if browser is None:
        pytest.skip('no Chromium here')
    path = write_report(run)
    done = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run',
         '--disable-background-networking',
         f'--user-data-dir={tmp_path / "profile"}', '--virtual-time-budget=2000', '--dump-dom', f'file://{path}'],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    if not done.stdout.strip():
        pytest.skip(f'{browser} does not start here')
    assert 'class="stepper stepping"' in done.stdout and 'class="strip"' in done.stdout
