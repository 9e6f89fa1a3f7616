"""The documents: links lead somewhere, commands name what exists, and the example of a new task works as printed."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from contract import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT))
    for pattern in ('*.md', 'docs/*.md', 'docs/zh/*.md', 'results/*.md')
    for path in ROOT.glob(pattern)
)


@pytest.mark.parametrize('page', PAGES)
def test_links_and_pictures_exist(page):
    text = (ROOT / page).read_text(encoding='utf-8')
    for target in re.findall(r'\]\(([^)#\s]*[./][^)#\s]*)', text):
        if not re.match(r'https?://', target):
            assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize('page', PAGES)
def test_commands_name_programs_and_configs_that_exist(page):
    text = (ROOT / page).read_text(encoding='utf-8')
    for program in re.findall(r'python -m launch\.(\w+)', text):
        assert (ROOT / 'launch' / f'{program}.py').is_file(), program
    for config in re.findall(r'--config=configs/([\w/]+)\.py', text):
        assert config in ('X', 'line', 'rating') or (ROOT / 'configs' / f'{config}.py').is_file(), config
    for script in re.findall(r'bash (launch/\w+\.sh)', text):
        assert (ROOT / script).is_file(), script


def test_every_english_page_is_in_the_navigation_and_has_a_chinese_one():
    navigation = (ROOT / 'mkdocs.yml').read_text(encoding='utf-8')
    translated = {path.name for path in (ROOT / 'docs' / 'zh').glob('*.md')}
    for page in (ROOT / 'docs').glob('*.md'):
        assert f': {page.name}\n' in navigation, page.name
        assert page.name in translated or page.name in ('architecture.md', 'data_sets.md'), page.name


@pytest.mark.parametrize('page', ['README.md', 'README.zh-CN.md'])
def test_the_front_page_is_short(page):
    assert len((ROOT / page).read_text(encoding='utf-8').splitlines()) <= 150


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip('mkdocs')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--quiet', '--site-dir', str(tmp_path / 'site')]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / 'site' / 'zh' / 'data' / 'index.html').is_file()


def files_and_commands(page: str) -> tuple[list[tuple[str, str]], list[str]]:
    """The files that a page tells one to write, and the commands that it tells one to run."""
    text = (ROOT / page).read_text(encoding='utf-8')
    commands = [line.strip() for line in text.splitlines() if line.startswith('    python -m')]
    return re.findall(r'```python\n# (\S+)\n(.*?)```', text, re.S), commands


def test_add_a_task_in_chinese_is_the_same_code():
    assert files_and_commands('docs/zh/add_a_task.md') == files_and_commands('docs/add_a_task.md')


@pytest.mark.slow
def test_add_a_task_works_word_for_word(tmp_path):
    for name in ('research', 'configs', 'launch'):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns('__pycache__'))
    files, commands = files_and_commands('docs/add_a_task.md')
    folders = ('research/tasks', 'configs')
    assert [path for path, _ in files] == [f'{folder}/{name}.py' for name in ('line', 'rating') for folder in folders]
    for path, code in files:
        (tmp_path / path).write_text(code)
    assert len(commands) == 4
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(tmp_path)}
    for command in commands:
        command = command.replace('python', sys.executable, 1)
        done = subprocess.run(command, shell=True, cwd=tmp_path, env=environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stdout + done.stderr
        if '--workdir' in command and 'train' in command:
            assert 'PASS' in done.stdout
        if 'predict' in command:
            assert re.search(r'"y": 2\.[45]', done.stdout)


def test_every_path_in_the_file_map_exists():
    for page in ('README.md', 'README.zh-CN.md'):
        paths = re.findall(r'^\| `([^`]+/|[^`]+\.py)` \|', (ROOT / page).read_text(encoding='utf-8'), re.M)
        assert len(paths) > 12
        for path in paths:
            assert (ROOT / path).exists(), path
