"""A headless Chromium for tests of the page; a test skips, with the reason, where it or playwright is missing."""

import contextlib
import importlib.util
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

FLAGS = (
    '--no-sandbox',
    '--disable-gpu',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-first-run',
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
)
WATCH = """
window.violations = []
addEventListener('securitypolicyviolation', (event) => {
    violations.push(event.violatedDirective + ' ' + event.blockedURI)
})
"""


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Starts the browser once for a module."""
    play = pytest.importorskip('playwright.sync_api', reason='playwright is absent: pip install playwright')
    path = shutil.which('chromium')
    if not path:
        pytest.skip('chromium is absent')
    with play.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Any, address: str, model: str = '', width: int = 1280, **options: Any) -> Iterator[Any]:
    """Opens the page, and asserts at the end: no other host, no violation of the policy, no error in a script."""
    options = {'viewport': {'width': width, 'height': 900}, 'locale': 'en-GB', **options}
    context = browser.new_context(**options)
    context.add_init_script(WATCH)
    foreign: list[str] = []
    context.route('**/*', lambda route: answer_route(route, address, foreign))
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors: list[str] = []
    page.on('pageerror', lambda error: errors.append(str(error)))
    page.goto(f'{address}/#model={model}' if model else address)
    yield page
    assert not foreign and not errors and page.evaluate('violations') == []
    context.close()


def answer_route(route: Any, address: str, foreign: list[str]) -> None:
    """Lets a request of the page pass if it goes to the server; others are kept and stopped."""
    url = route.request.url
    if url.startswith((address, 'data:', f'blob:{address}')):
        route.continue_()
    else:
        foreign.append(url)
        route.abort()


def until(page: Any, expression: str) -> None:
    """Waits until an expression is true; playwright's own `wait_for_function` needs eval, which the policy forbids."""
    for _ in range(400):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f'never true: {expression}')


def axe_source() -> str:
    """The script of axe-core, from the package axe-playwright-python; the test is skipped without it."""
    spec = importlib.util.find_spec('axe_playwright_python')
    if spec is None or spec.origin is None:
        pytest.skip('axe is absent: pip install axe-playwright-python')
    return pathlib.Path(spec.origin).with_name('axe.min.js').read_text('utf-8')


def audit(page: Any, axe: str) -> list[str]:
    """The violations of WCAG 2.2 A and AA in the present state of a page."""
    if not page.evaluate('Boolean(window.axe)'):
        page.evaluate(axe)
    tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']
    result = page.evaluate(
        '(tags) => axe.run(document, {runOnly: tags, resultTypes: ["violations"], preload: false})', tags
    )
    assert len(result['passes']) > 15
    return [f'{one["id"]}: {one["nodes"][0]["html"][:200]}' for one in result['violations']]
