// One request of one model, and the pane that shows it.
import { call, events } from './api.js';
import { showAnswer } from './answer.js';
import { requestOf } from './code.js';
import { el, number, t } from './dom.js';
import { draws } from './form.js';
import { figure, headlineMetric } from './passport.js';
import { streamView } from './stream.js';

// A record: {card, inputs, settings, status, answer | text, tokens, events, milliseconds, error, pane}.
export async function ask(record, signal) {
  const { path, body } = requestOf(record.card, record.inputs, record.settings);
  const start = performance.now();
  try {
    if (record.card.generates) await stream(record, path, body, signal, start);
    else record.answer = unpack(await call(path, body, signal), record);
    record.status = 'done';
  } catch (error) {
    if (error.name === 'AbortError') record.status = 'stopped';
    else Object.assign(record, { status: 'failed', error });
  }
  record.milliseconds = { ...record.milliseconds, total: performance.now() - start };
  render(record);
}

// The answer of `predict`, or the list of answers of `predict:batch`; the first error of a batch is its error.
function unpack(reply, record) {
  const times = (reply.answers ?? []).map((one) => one.milliseconds?.compute ?? 0);
  record.milliseconds = reply.milliseconds ?? (Math.max(...times) > 0 ? { compute: Math.max(...times) } : {});
  record.raw = reply;
  if (!reply.answers) return reply.answer;
  const failed = reply.answers.find((one) => one.error);
  if (failed) throw Object.assign(new Error(failed.error.message), failed.error);
  return reply.answers.map((one) => one.answer);
}

async function stream(record, path, body, signal, start) {
  record.text = '';
  for await (const event of events(path, body, signal)) {
    if (!record.events.length) record.milliseconds = { first: performance.now() - start };
    event.first = record.tokens.length;
    record.text += event.text;
    record.tokens.push(...(event.tokens ?? []));
    record.events.push(event);
    record.finish = event.finish ?? record.finish;
    record.stream?.add(event, event.first);
  }
}

export function emptyPane(card) {
  return el('div', { class: 'pane blank' }, el('span', { class: 'mark', 'aria-hidden': 'true' },
    Array.from({ length: 9 }, () => el('i'))), el('p', { t: draws(card) ? 'emptyDraws' : 'empty' }));
}

// A new pane for a record; titled where two models answer.
export function renderPane(record, titled) {
  record.pane = el('div', { class: 'pane' });
  record.titled = titled;
  record.stream = null;
  render(record);
  return record.pane;
}

export function render(record) {
  if (!record.pane) return;
  const [name, metric] = headlineMetric(record.card) ?? [];
  const title = record.titled && el('h3', {}, record.card.name, metric && el('small', {}, ` ${figure(name, metric.value)}`));
  const shown = el('div', { class: 'shown', 'aria-busy': String(record.status === 'running') });
  if (record.text !== undefined || (record.card.generates && record.status === 'running')) {
    record.stream ??= streamView(record);
    shown.append(record.stream.view);
  } else if (record.status === 'done') {
    shown.append(...showAnswer(record.answer, record), rawView(record));
  }
  if (record.status === 'running') shown.append(el('p', { class: 'wait' }, t('running')));
  if (record.status === 'stopped') shown.append(el('p', { class: 'note' }, t('stopped')));
  if (record.status === 'failed') shown.append(failure(record.error));
  if (record.status !== 'running') record.stream?.finish();
  record.pane.replaceChildren(...[title, shown, times(record)].filter(Boolean));
}

function failure(error) {
  return el('div', { class: 'failure', role: 'alert' }, el('b', { t: 'failed' }), el('p', {}, errorText(error)));
}

export function errorText(error) {
  if (error.status === 0) return t('unreachable');
  if ([429, 503].includes(error.status)) return t('busy', { n: error.retryAfter || 1 });
  return error.message;
}

function times({ milliseconds, tokens, finish, status }) {
  if (!milliseconds || status === 'running') return null;
  const { compute, queue, first, total } = milliseconds;
  const rate = tokens.length > 1 && total > first ? (1000 * (tokens.length - 1)) / (total - first) : 0;
  const ms = (value) => number(value, value < 10 ? 2 : 3);
  return el('p', { class: 'times' }, [
    compute !== undefined && t('compute', { n: ms(compute) }), queue !== undefined && t('queue', { n: ms(queue) }),
    first && t('firstToken', { n: ms(first) }), rate && t('speed', { n: number(rate, 3) }), total && t('total', { n: ms(total) }),
    finish && t(finish === 'stop' ? 'finishStop' : 'finishLength'),
  ].filter(Boolean).map((text) => el('span', {}, text)));
}

// The reply as JSON, without the bytes of pictures and sounds.
function rawView(record) {
  const short = (key, value) => (key === 'base64' && value.length > 80 ? `${value.slice(0, 40)}… (${value.length})` : value);
  return el('details', {}, el('summary', { t: 'raw' }),
    el('pre', { tabindex: 0 }, JSON.stringify(record.raw, short, 2)));
}
