// The page of the server: its models, a form for the one that is shown, its answers and what follows from them.
import { Failure, call, setToken } from './api.js';
import { snippet, languages } from './code.js';
import {
  announce, breakable, byId, current, date, el, named, number, preferred, setLanguage, t, time, word,
} from './dom.js';
import { buildForm, collect, draws, fill, mark, shownFields } from './form.js';
import { isMedia, picture } from './media.js';
import { figure, headlineMetric, passport } from './passport.js';
import { readLink, writeLink } from './link.js';
import { ask, emptyPane, errorText, renderPane } from './run.js';
import { hideTip } from './stream.js';
import { summary } from './answer.js';

const state = { cards: [], card: null, form: null, other: '', records: [], running: null, tab: 'curl', visits: [], drafts: {} };
const calm = matchMedia('(prefers-reduced-motion: reduce)');
let composing = false; // an input method is open: Enter chooses a word

async function load() {
  const box = byId('passport');
  try {
    state.cards = (await call('models')).models;
  } catch (error) {
    box.replaceChildren(...(error.status === 401 ? tokenForm() : problem(error)));
    box.setAttribute('aria-busy', 'false');
    return;
  }
  box.setAttribute('aria-busy', 'false');
  if (!state.cards.length) box.replaceChildren(el('h1', { t: 'noModels' }));
  else follow();
}

function problem(error) {
  return [el('h1', {}, errorText(error)), el('button', { type: 'button', class: 'primary', t: 'retry', onclick: load })];
}

let asked = false;
function tokenForm() {
  const input = el('input', { type: 'password', id: 'token', autocomplete: 'off', 'aria-describedby': 'token-hint token-error' });
  const wrong = el('p', { class: 'error', id: 'token-error', role: 'alert' }, asked ? t('tokenWrong') : '');
  asked = true;
  const submit = (event) => {
    event.preventDefault();
    setToken(input.value.trim());
    load();
  };
  queueMicrotask(() => input.focus());
  return [el('h1', { t: 'tokenNeeded' }), el('form', { class: 'stack', onsubmit: submit }, el('div', { class: 'field' },
    el('label', { for: 'token', t: 'token' }), el('small', { class: 'hint', id: 'token-hint', t: 'tokenHint' }), input, wrong),
  el('div', { class: 'actions' }, el('button', { class: 'primary', t: 'open' })))];
}

// Shows what the address names: its model and inputs, else the first model.
function follow() {
  const link = readLink(location.hash);
  const card = state.cards.find(({ name }) => name === link.model) ?? state.cards[0];
  show(card, link);
}

function show(card, link = {}) {
  stop();
  idle();
  if (state.card) state.drafts[state.card.name] = draft();
  Object.assign(state, { card, records: [], other: '' });
  state.form = buildForm(card);
  byId('fields').replaceChildren(state.form.element);
  const kept = state.drafts[card.name];
  const given = link.inputs || link.settings ? link : kept ?? { inputs: card.examples?.[0] };
  fill(state.form, given.inputs ?? given.values, given.settings);
  byId('bench').hidden = byId('code').hidden = false;
  byId('form-error').textContent = '';
  drawExamples();
  drawOthers(link.compare);
  if (!languages(card).includes(state.tab)) state.tab = 'curl';
  redraw();
}

// Everything that is not the form, which keeps what is in it.
function redraw() {
  const { card } = state;
  document.title = `${card.name} · Tessera`;
  byId('passport').replaceChildren(...passport(card));
  drawModels();
  drawPanes();
  drawTabs();
  drawHistory();
}

function drawModels() {
  byId('models').hidden = state.cards.length < 2;
  byId('models').querySelector('ul').replaceChildren(...state.cards.map((card) => {
    const [name, metric] = headlineMetric(card) ?? [];
    const here = card === state.card ? 'page' : null;
    return el('li', {}, el('a', { href: `#model=${card.name}`, 'aria-current': here },
      el('b', {}, breakable(card.name)), el('span', { class: 'task' }, named(card.task)),
      metric && el('span', { class: 'metric' }, figure(name, metric.value), el('small', {}, ` ${named(name)}`)),
      card.trained && el('small', { class: 'date' }, date(card.trained))));
  }));
}

function drawExamples() {
  const examples = state.card.examples ?? [];
  const useful = examples.filter((example) => Object.keys(example).length).slice(0, 8);
  const chip = (example, k) => {
    const values = Object.values(example);
    const image = values.find((value) => isMedia(value) && !value.media_type?.startsWith('audio'));
    const plain = values.filter((value) => typeof value !== 'object');
    const title = image || !plain.length || plain.length > 6 ? el('span', { t: 'example', values: { n: k + 1 } }) : el('span', { dir: 'auto' }, plain.join(', ').slice(0, 200));
    const thumbnail = image && picture(image, '');
    return el('button', { type: 'button', class: image ? 'chip image' : 'chip', onclick: () => choose(example) }, thumbnail, title);
  };
  byId('examples').hidden = !useful.length;
  byId('examples').replaceChildren(el('h3', { t: 'tryOne' }), el('div', { class: 'chips' }, useful.map(chip)));
}

function choose(example) {
  fill(state.form, example);
  drawSnippet();
}

// Models that can read the same input: every field of theirs has one of the same kind.
function drawOthers(chosen) {
  const rivals = state.cards.filter((card) => card !== state.card && fieldMap(card));
  byId('comparison').hidden = !rivals.length;
  byId('other').replaceChildren(el('option', { value: '', t: 'none' }), ...rivals.map(({ name }) => el('option', { value: name }, name)));
  byId('other').value = rivals.some(({ name }) => name === chosen) ? chosen : '';
  state.other = byId('other').value;
}

// {field of the other model: field of this one}, null where they do not read the same.
function fieldMap(other) {
  const mine = shownFields(state.card);
  const theirs = shownFields(other);
  if (draws(other) !== draws(state.card) || mine.length !== theirs.length) return null;
  const map = {};
  for (const [name, { kind }] of theirs) {
    const fits = mine.filter(([, spec]) => spec.kind === kind).map(([field]) => field);
    const same = fits.includes(name) ? name : fits.length === 1 ? fits[0] : null;
    if (!same) return null;
    map[name] = same;
  }
  return map;
}

function draft() {
  const kept = (fields) => Object.fromEntries(Object.entries(fields).flatMap(([name, field]) => {
    try {
      const value = field.get();
      return value === undefined ? [] : [[name, value]];
    } catch {
      return []; // half-written
    }
  }));
  return { values: kept(state.form.fields), settings: kept(state.form.settings) };
}

async function run() {
  if (state.running) return;
  byId('form-error').textContent = '';
  const input = collect(state.form);
  if (!input) return;
  const rival = state.cards.find(({ name }) => name === state.other);
  const map = rival && fieldMap(rival);
  const translated = map && Object.fromEntries(Object.entries(map).map(([theirs, mine]) => [theirs, input.values[mine]]));
  const controller = new AbortController();
  state.running = controller;
  state.records = [newRecord(state.card, input.values, input), ...(rival ? [newRecord(rival, translated, input)] : [])];
  history.replaceState(null, '', writeLink(state.card.name, input, state.other).address);
  word(byId('run').firstElementChild, 'stop');
  byId('run').classList.add('on');
  announce(t('running'));
  drawPanes();
  if (byId('answers').getBoundingClientRect().top > 0.75 * innerHeight) {
    byId('answers').scrollIntoView({ behavior: calm.matches ? 'auto' : 'smooth' });
  }
  await Promise.all(state.records.map((record) => ask(record, controller.signal)));
  finish(controller);
}

function newRecord(card, values, input) {
  const inputs = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
  return { card, inputs, settings: input.settings, all: input, events: [], tokens: [], status: 'running', time: new Date() };
}

function finish(controller) {
  if (state.running !== controller) return; // another model is shown by now
  idle();
  const [first] = state.records;
  const field = first.status === 'failed' && state.form.fields[fieldOf(first.error)];
  if (field) {
    mark(field, '', first.error.message);
    field.control.focus();
  }
  byId('link').hidden = false;
  state.visits.unshift({ records: state.records, other: state.other });
  state.visits.length = Math.min(state.visits.length, 30);
  drawHistory();
  announce(state.records.map((record) => t('answered', { name: record.card.name, answer: outcome(record) })).join(' '));
}

function idle() {
  state.running = null;
  word(byId('run').firstElementChild, 'run');
  byId('run').classList.remove('on');
}

// The field that an error names: in `field`, else as the first word of its message.
function fieldOf({ field, message }) {
  const named = (field || '').replace('inputs.', '').split(/[.[]/)[0];
  return named || Object.keys(state.form.fields).find((name) => message.startsWith(name));
}

function outcome(record) {
  if (record.status === 'failed') return errorText(record.error);
  if (record.status === 'stopped') return t('stopped');
  return record.text ?? summary(record.answer);
}

function stop() {
  state.running?.abort();
  hideTip();
}

function drawPanes() {
  const box = byId('panes');
  byId('bench').classList.toggle('comparing', Boolean(state.other));
  byId('link').hidden = !state.records.length;
  box.replaceChildren(...(state.records.length ? state.records.map((record) => renderPane(record, state.records.length > 1))
    : [emptyPane(state.card)]));
}

function drawTabs() {
  const names = languages(state.card);
  byId('tabs').replaceChildren(...names.map((name) => el('button', {
    type: 'button', role: 'tab', id: `tab-${name}`, 'aria-controls': 'snippet', 'aria-selected': String(name === state.tab),
    tabindex: name === state.tab ? 0 : -1, onclick: () => openTab(name),
  }, name)));
  drawSnippet();
}

function openTab(name) {
  state.tab = name;
  drawTabs();
  byId(`tab-${name}`).focus();
}

function drawSnippet() {
  const { values, settings } = draft();
  byId('snippet').textContent = snippet(state.tab, state.card, values, settings);
  byId('snippet').setAttribute('aria-labelledby', `tab-${state.tab}`);
}

function drawHistory() {
  byId('history').hidden = !state.visits.length;
  byId('history').querySelector('ol').replaceChildren(...state.visits.map((visit) => {
    const [record] = visit.records;
    return el('li', {}, el('button', { type: 'button', onclick: () => revisit(visit) },
      el('span', { class: 'when' }, time(record.time)), el('b', {}, visit.records.map(({ card }) => card.name).join(' · ')),
      el('span', { class: 'what' }, visit.records.map(outcome).join(' · ').slice(0, 160))));
  }));
}

function revisit(visit) {
  const [record] = visit.records;
  show(record.card, { inputs: record.all.values, settings: record.settings, compare: visit.other });
  state.records = visit.records;
  drawPanes();
  byId('ask').focus();
}

async function copy(text, key) {
  try {
    await navigator.clipboard.writeText(text);
    announce(t(key));
  } catch {
    getSelection().selectAllChildren(byId('snippet'));
  }
}

function flash(button, key) {
  const before = button.dataset.t;
  word(button, key);
  setTimeout(() => word(button, before), 1600);
}

function switchLanguage() {
  setLanguage(current() === 'en' ? 'zh' : 'en');
  nameSwitch();
  const address = new URL(location.href);
  address.searchParams.set('lang', current());
  history.replaceState(null, '', address);
  for (const field of Object.values(state.form?.fields ?? {})) field.recount?.();
  if (state.card) redraw();
}

function nameSwitch() {
  byId('language').textContent = t('other');
  byId('language').lang = current() === 'en' ? 'zh-Hans' : 'en';
}

function keys(event) {
  if (event.isComposing || event.keyCode === 229) return;
  if (event.key === 'Escape') stop();
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey) && state.form) {
    event.preventDefault();
    run();
  }
}

function moveTab(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const names = languages(state.card);
  openTab(names.at((names.indexOf(state.tab) + step) % names.length));
}

function paste(event) {
  const file = event.clipboardData?.files?.[0];
  if (!file || !state.form) return;
  const kind = file.type.split('/')[0];
  const field = Object.values(state.form.fields).find((one) => one.take && one.element.classList.contains(`kind-${kind}`));
  if (field) field.take(file, file.name);
}

function listen() {
  let started = 0;
  byId('form').addEventListener('submit', (event) => {
    event.preventDefault();
    if (composing) return;
    if (state.running && Date.now() - started > 400) return stop(); // a double click does not stop at once
    started = Date.now();
    run();
  });
  byId('form').addEventListener('input', drawSnippet);
  byId('form').addEventListener('change', drawSnippet);
  byId('other').addEventListener('change', () => (state.other = byId('other').value));
  byId('clear').addEventListener('click', () => {
    fill(state.form);
    drawSnippet();
  });
  byId('language').addEventListener('click', switchLanguage);
  byId('tabs').addEventListener('keydown', moveTab);
  byId('copy').addEventListener('click', () => copy(byId('snippet').textContent, 'copied').then(() => flash(byId('copy'), 'copied')));
  byId('link').addEventListener('click', () => {
    const [record] = state.records;
    const { address, whole } = writeLink(state.card.name, record.all, state.other);
    copy(new URL(address, location.href).href, whole ? 'linkCopied' : 'linkWithout').then(() => flash(byId('link'), 'copied'));
  });
  byId('skip').addEventListener('click', (event) => {
    event.preventDefault();
    byId('ask').focus();
  });
  document.addEventListener('keydown', keys);
  document.addEventListener('paste', paste);
  document.addEventListener('compositionstart', () => (composing = true));
  document.addEventListener('compositionend', () => setTimeout(() => (composing = false), 30));
  addEventListener('hashchange', () => state.cards.length && follow());
  addEventListener('scroll', hideTip, { passive: true });
}

setLanguage(preferred());
nameSwitch();
listen();
load();
