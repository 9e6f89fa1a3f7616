"""The page in a browser, with a server that needs no model."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from browser import audit, axe_source, chromium, opened, until
from fake_server import CONTEXT, TOKEN, FakeServer, cards, png, wav

ENTER = 'Control+Enter'
PICTURE, SOUND = base64.b64decode(png(8, 1)), base64.b64decode(wav())


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope='module')
def server() -> Iterator[FakeServer]:
    made = FakeServer()
    yield made
    made.shutdown()


def run(page: Any) -> None:
    """Presses Run and waits for the end of the answer."""
    page.click('#run')
    page.wait_for_selector('.times')


def last(server: FakeServer) -> dict[str, Any]:
    return server.received[-1]['body']


def test_smoke(browser, server):
    with opened(browser, server.address, 'digits') as page:
        page.wait_for_selector('.preview img')
        sizes = page.evaluate("""['navigation', 'resource'].flatMap((type) => performance.getEntriesByType(type))
            .filter((one) => !one.name.endsWith('/models')).map((one) => one.encodedBodySize)""")
        assert len(sizes) > 10 and min(sizes) > 0 and sum(sizes) <= 60_000
        assert page.inner_text('.tile .value') == '99.0%' and 'baseline 10.0%' in page.inner_text('.tile')
        assert {'28 November 2026', 'configs/digits.py', 'ac5c9b8d20fe'} <= set(page.inner_text('.origin').split('\n'))
        page.keyboard.press(ENTER)
        page.wait_for_selector('.times')
        assert last(server) == {'inputs': {'image': png(8, 0)}}
        assert page.inner_text('.bars li:first-child b') == '72.7%' and '3.1 ms compute' in page.inner_text('.times')
        assert page.inner_text('#status').startswith('Answer of digits: ')


@pytest.mark.slow
def test_every_kind_of_input_has_a_form(browser, server):
    expected = {
        'digits': {'image': png(8, 0)},
        'trec': {'text': 'What is the capital of Norway ?'},
        'adult': {'age': 39, 'hours_per_week': 40, 'workclass': 'Private', 'education': 'Masters'},
        'multi30k': {'source': 'Ein Hund läuft über die Wiese.'},
        'squad': {'question': 'Who built the mill?', 'context': CONTEXT},
        'super_resolution': {'image': png(24, 1)},
    }
    with opened(browser, server.address) as page:
        for card in cards():
            page.click(f'nav a[href="#model={card["name"]}"]')
            if card['name'] == 'splices':
                page.fill('textarea', 'ACGT')
                expected['splices'] = {'sequence': 'ACGT'}
            if card['name'] == 'topics':
                page.fill('textarea', '一二三 🌊')
                expected['topics'] = {'text': '一二三 🌊'}
                assert page.inner_text('.counter') == '5 characters'
            if card['name'] == 'features':
                files = [{'name': 'rows.csv', 'mimeType': 'text/csv', 'buffer': b'1,2,3\n4,5,6.5\n'}]
                page.set_input_files('input[type=file]', files)
                until(page, "document.querySelector('textarea').value")
                expected['features'] = {'features': [[1, 2, 3], [4, 5, 6.5]]}
            if card['name'] == 'melody':
                page.check('label:has-text("note") input')
                page.click('text=Add one')
                page.fill('li:nth-child(2) input[type=number]', '60')
                expected['melody'] = {'events': [{'kind': 'note'}, {'pitch': 60}]}
            run(page)
            assert page.locator('.shown > *').count() and not page.locator('.failure').count(), card['name']
            if card['name'] in expected:
                assert last(server)['inputs'] == expected[card['name']]


@pytest.mark.slow
def test_answers_are_shown_by_their_form(browser, server):
    with opened(browser, server.address, 'squad') as page:
        run(page)
        assert page.inner_text('.headline') == 'Anna Berg 83.0%' and page.inner_text('mark') == 'Anna Berg'
        assert page.inner_text('.context') == CONTEXT and page.locator('table .share').count() == 2
        page.click('nav a[href="#model=digits_gan"]')
        page.fill('input[type=number] >> nth=0', '3')
        page.fill('input[type=number] >> nth=1', '7')
        run(page)
        assert [one['inputs']['seed'] for one in last(server)['requests']] == [7, 8, 9]
        assert (
            page.locator('.gallery img').evaluate_all('(all) => all.map((one) => one.alt)')
            == ['3, 32 × 32 pixels, made by digits_gan'] * 3
        )
        page.click('nav a[href="#model=topics"]')
        page.fill('textarea', 'a match abroad')
        run(page)
        assert page.inner_text('.headline').strip() == 'sport, travel' and page.locator('.bars .chosen').count() == 2
        page.click('nav a[href="#model=super_resolution"]')
        run(page)
        assert page.inner_text('.values').split('\n') == ['PSNR', '31.204', 'SSIM', '0.9012']
        page.click('nav a[href="#model=multi30k"]')
        run(page)
        until(page, "document.querySelector('.shown audio').duration > 0.2")
        page.click('text=JSON')
        assert '"text": "A dog runs across the meadow."' in page.inner_text('details pre')


@pytest.mark.slow
def test_a_stream_shows_tokens_and_stops(browser, server):
    with opened(browser, server.address, 'python_lm') as page:
        page.evaluate("""() => {
            window.news = []
            const note = () => news.push(document.getElementById('status').textContent)
            new MutationObserver(note).observe(document.getElementById('status'), {childList: true})
        }""")
        assert page.locator('[aria-live], [role=status], [role=log]').count() == 1
        page.click('summary:has-text("Settings")')
        page.fill('input >> nth=0', '40')
        run(page)
        body = last(server)
        assert body['inputs'] == {'text': 'import os\n'} and body['stream'] and body['max_tokens'] == 40
        assert page.locator('.token').count() == 40 and 'length reached' in page.inner_text('.times')
        assert page.evaluate('news').pop(0) == 'Running …' and len(page.evaluate('news')) == 2
        page.hover('.token >> nth=3')
        assert page.locator('#tip .chosen').count() == 1 and '%' in page.inner_text('#tip')
        page.click('.tokens summary')
        assert page.locator('.tokens tbody tr').count() == 40
        page.fill('input >> nth=0', '4000')
        cut = server.cut
        page.keyboard.press(ENTER)
        page.wait_for_selector('.token >> nth=10')
        assert page.inner_text('#run') == 'Stop'
        page.keyboard.press('Escape')
        page.wait_for_selector('.note:has-text("Stopped")')
        page.wait_for_timeout(200)
        assert server.cut == cut + 1 and page.inner_text('#run') == 'Run' and page.locator('.token').count() < 2000
        page.click('#run')
        page.wait_for_selector('.token >> nth=4')
        page.wait_for_timeout(420)  # a double click does not stop
        page.click('#run')
        page.wait_for_selector('.note:has-text("Stopped")')
        page.keyboard.press(ENTER)
        page.wait_for_selector('.token >> nth=4')
        page.click('nav a[href="#model=trec"]')  # leaves the stream
        page.wait_for_selector('.blank')
        assert page.inner_text('#run') == 'Run' and page.locator('#history li').count() == 3


@pytest.mark.slow
def test_the_keyboard_reaches_everything(browser, server):
    with opened(browser, server.address, 'trec') as page:
        page.wait_for_selector('#fields textarea')
        reached = []
        for _ in range(45):
            page.keyboard.press('Tab')
            reached.append(
                page.evaluate('(document.activeElement.id || document.activeElement.textContent).slice(0, 20)')
            )
            if reached[-1] == 'skip':
                assert page.evaluate('document.activeElement.getBoundingClientRect().top >= 0')
            if page.evaluate("document.activeElement.matches('textarea')"):
                page.keyboard.type('who?')
            if reached[-1] == 'snippet':
                break
        order = ['skip', 'language', 'digits', 'clear', 'other', 'run', 'copy', 'tab-curl', 'snippet']
        places = [next(k for k, name in enumerate(reached) if name.startswith(one)) for one in order]
        assert places == sorted(places)
        page.keyboard.press('Shift+Tab')
        page.keyboard.press('ArrowRight')
        assert page.evaluate('document.activeElement.id') == 'tab-Python' and 'requests.post' in page.inner_text(
            '#snippet'
        )
        page.keyboard.press(ENTER)
        page.wait_for_selector('.times')
        assert last(server)['inputs']['text'].startswith('who?') or 'who?' in last(server)['inputs']['text']


@pytest.mark.slow
def test_chinese_and_its_input_methods(browser, server):
    with opened(browser, server.address, 'trec', locale='zh-CN') as page:
        page.wait_for_selector('#fields textarea')
        assert page.evaluate('document.documentElement.lang') == 'zh-Hans' and page.inner_text('#run') == '运行'
        page.fill('textarea', '这是什么？')
        before = len(server.received)
        page.evaluate("""() => {
            const event = {key: 'Enter', ctrlKey: true, isComposing: true, bubbles: true}
            document.querySelector('textarea').dispatchEvent(new KeyboardEvent('keydown', event))
            document.dispatchEvent(new CompositionEvent('compositionstart'))
            document.getElementById('form').requestSubmit()
            document.dispatchEvent(new CompositionEvent('compositionend'))
        }""")
        page.wait_for_timeout(100)
        assert len(server.received) == before
        run(page)
        assert '计算 3.1 毫秒' in page.inner_text('.times') and '准确率' in page.inner_text('.tile')
        page.click('#language')
        assert page.input_value('textarea') == '这是什么？' and page.inner_text('#run') == 'Run'
        assert '3.1 ms compute' in page.inner_text('.times') and 'lang=en' in page.url
        page.reload()
        page.wait_for_selector('#fields textarea')
        assert page.inner_text('#run') == 'Run' and page.input_value('textarea') == '这是什么？'


@pytest.mark.slow
def test_pictures_and_sounds_from_devices(browser, server):
    with opened(browser, server.address, 'digits', permissions=['camera', 'microphone']) as page:
        page.click('text=Remove')
        assert page.locator('.preview').is_hidden()
        run_empty = page.locator('#run')
        run_empty.click()
        assert page.inner_text('.field .error') == 'This field is empty.'
        page.click('button:has-text("Camera")')
        page.click('text=Take the picture')
        page.wait_for_selector('.preview img')
        assert 'camera.jpg' in page.inner_text('#snippet')
        run(page)
        assert base64.b64decode(last(server)['inputs']['image']).startswith(b'\xff\xd8')
        transfer = """([text, kind]) => {
            const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))
            const data = new DataTransfer()
            data.items.add(new File([bytes], 'two.png', {type: 'image/png'}))
            if (kind == 'paste') document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: data}))
            else document.querySelector('.drop').dispatchEvent(new DragEvent('drop', {dataTransfer: data}))
        }"""
        for kind, seed in (('paste', 2), ('drop', 3)):
            page.evaluate(transfer, [png(8, seed), kind])
            until(page, f"document.querySelector('.preview img').src.endsWith('{png(8, seed)[-40:]}')")
            run(page)
            assert last(server)['inputs']['image'] == png(8, seed)
        page.click('nav a[href="#model=spoken_digits"]')
        page.click('text=Record')
        page.wait_for_selector('.record.on:has-text("1 s")')
        page.click('.record')
        page.wait_for_selector('text=recording.wav')
        run(page)
        sound = base64.b64decode(last(server)['inputs']['audio'])
        assert sound[:4] == b'RIFF' and 44 + int.from_bytes(sound[40:44], 'little') == len(sound) > 40_000


@pytest.mark.slow
def test_links_history_and_comparison(browser, server):
    with opened(browser, server.address, 'trec') as page:
        page.fill('textarea', 'a & b = "c" #d\n😀')
        page.select_option('#other', 'trec_small')
        run(page)
        assert [one['path'] for one in server.received[-2:]] != [server.received[-1]['path']] * 2
        assert server.received[-1]['body'] == server.received[-2]['body'] and page.locator('.pane').count() == 2
        link = page.url
        page.fill('textarea', 'another')
        run(page)
        page.wait_for_selector('#history li:nth-child(2)')
        assert page.locator('#history li').count() == 2
        page.click('#history li:nth-child(2) button')
        assert page.input_value('textarea') == 'a & b = "c" #d\n😀' and page.locator('.pane .headline').count() == 2
        page.goto('about:blank')
        page.goto(link)
        page.wait_for_selector('#fields textarea')
        assert page.input_value('textarea') == 'a & b = "c" #d\n😀' and page.input_value('#other') == 'trec_small'
        page.goto('about:blank')
        page.goto(f'{server.address}/#model=none&inputs=[broken')
        page.wait_for_selector('#fields *')
        assert page.inner_text('h1') == 'digits'


ODD = 'it\'s "$1" $& 2x.png'
HARD = 'it\'s $HOME `id` \\n "x"\n<END> 水'


@pytest.mark.slow
@pytest.mark.parametrize('model', ['trec', 'super_resolution', 'python_lm', 'adult', 'noise'])
def test_the_code_sends_what_the_page_sends(browser, server, model, tmp_path):
    with opened(browser, server.address, model) as page:
        page.wait_for_selector('#fields *')
        if model in ('trec', 'python_lm'):
            page.fill('textarea', HARD)
        if model == 'super_resolution':
            picture = base64.b64decode(png(24, 2))
            (tmp_path / ODD).write_bytes(picture)
            page.set_input_files('.kind-image input', {'name': ODD, 'mimeType': 'image/png', 'buffer': picture})
            page.wait_for_selector('.preview :text("2x")')
        run(page)
        sent = server.received[-1]
        for tab, program in (('curl', ['bash', '-c']), ('Python', [sys.executable, '-c'])):
            page.click(f'#tab-{tab}')
            code = page.inner_text('#snippet')
            done = subprocess.run([*program, code], text=True, capture_output=True, cwd=tmp_path, timeout=20)
            assert not done.returncode and done.stdout and server.received[-1] == sent, done.stderr
        if model in ('python_lm', 'noise'):
            page.click('#tab-openai')
            compile(page.inner_text('#snippet'), 'snippet', 'exec')


@pytest.mark.slow
def test_mistakes_and_refusals(browser, server):
    with opened(browser, server.address, 'squad') as page:
        page.fill('textarea >> nth=1', 'bad')
        page.click('#run')
        page.wait_for_selector('.error:has-text("cannot be read")')
        field = page.locator('.field:has(.error:not(:empty)) textarea')
        assert field.get_attribute('aria-invalid') == 'true' and page.evaluate(
            'document.activeElement.id'
        ) == field.get_attribute('id')
        assert (
            page.locator(f'[id="{field.get_attribute("aria-describedby").split()[-1]}"]')
            .inner_text()
            .startswith('context: ')
        )
        page.fill('textarea >> nth=1', 'busy')
        run(page)
        assert page.inner_text('.failure p') == 'The server is busy. Try again in 2 s.'
    guarded = FakeServer(token=TOKEN, names=['trec'])
    with opened(browser, guarded.address) as page:
        page.fill('#token', 'wrong')
        page.keyboard.press('Enter')
        page.wait_for_selector('text=This token is not accepted.')
        page.fill('#token', TOKEN)
        page.keyboard.press('Enter')
        page.wait_for_selector('#fields textarea')
        assert page.locator('nav').is_hidden() and '$TESSERA_TOKEN' in page.inner_text('#snippet')
        page.context.set_offline(True)
        run(page)
        assert page.inner_text('.failure p') == 'The server cannot be reached.'


@pytest.mark.slow
@pytest.mark.parametrize(('width', 'scheme', 'locale'), [(320, 'dark', 'zh-CN'), (1280, 'light', 'en-GB')])
def test_access(browser, server, width, scheme, locale):
    axe = axe_source()
    options = {'color_scheme': scheme, 'locale': locale, 'reduced_motion': 'reduce'}
    with opened(browser, server.address, 'melody', width, **options) as page:
        page.wait_for_selector('#fields *')
        assert audit(page, axe) == []
        for model in ('digits', 'trec', 'adult', 'spoken_digits', 'python_lm', 'digits_gan', 'squad'):
            page.click(f'nav a[href="#model={model}"]')
            if model == 'trec':
                page.select_option('#other', 'trec_small')
            run(page)
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
            if model in ('digits', 'adult', 'python_lm', 'squad'):
                assert audit(page, axe) == [], model
            assert page.evaluate('document.documentElement.scrollWidth') <= width, model
        names = page.locator('*').evaluate_all('(all) => all.map((one) => getComputedStyle(one).animationName)')
        assert set(names) == {'none'}
        page.fill('textarea >> nth=0', 'bad')
        page.click('#run')
        page.wait_for_selector('.failure')
        assert audit(page, axe) == []


@pytest.mark.slow
def test_the_real_server(browser, tmp_path):
    pytest.importorskip('fastapi', reason='the extra serve is absent')
    from serve_toy import running, toy_model

    with running({'toy': toy_model(tmp_path)}, token=TOKEN.encode()) as served:
        with opened(browser, served.url) as page:
            page.fill('#token', TOKEN)
            page.keyboard.press('Enter')
            page.wait_for_selector('.kind-text textarea')
            assert page.input_value('.kind-text textarea') == 'abc'
            page.set_input_files('.kind-image input', {'name': 'a.png', 'mimeType': 'image/png', 'buffer': PICTURE})
            page.set_input_files('.kind-audio input', {'name': 'a.wav', 'mimeType': 'audio/wav', 'buffer': SOUND})
            page.fill('.kind-array textarea', '[1, 2, 3.5]')
            page.fill('.kind-list input >> nth=0', '4')
            run(page)
            picture = page.get_attribute('.shown img', 'alt')
            assert picture == 'picture, 3 × 2 pixels, made by toy' and page.locator('.shown audio').count() == 1
            page.click('text=JSON')
            shown = json.loads(page.inner_text('details:has-text("JSON") pre'))['answer']
            assert shown['scores'][0] == 3 and shown['scores'][5:7] == [1, 6.5] and shown['scores'][2] > 0
            page.fill('.kind-category input', 'z')
            page.click('#run')
            page.wait_for_selector('.kind-category .error:has-text("a, b or c")')
            page.fill('.kind-category input', '')
            code = page.inner_text('#snippet')
            (tmp_path / 'a.wav').write_bytes(SOUND)
            environment = {**os.environ, 'TESSERA_TOKEN': TOKEN}
            done = subprocess.run(['bash', '-c', code], capture_output=True, cwd=tmp_path, env=environment, timeout=20)
            answer = json.loads(done.stdout)['answer']
            assert answer['scores'] == shown['scores'] and answer['noise'] == shown['noise']
