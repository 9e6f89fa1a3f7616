// What a visitor should know first: what a model is, how well it did on the test split, when and from what it was made.
import { breakable, date, el, named, number, percent, t } from './dom.js';

const SHARES = /accuracy|top_\d|f1|precision|recall|exact|error_rate|auroc|auc/;

const figures = (card) => Object.entries(card.metrics ?? {}).filter(([, metric]) => typeof metric?.value === 'number');

// The metric to show first: one with a baseline and a direction, else any.
export const headlineMetric = (card) =>
  figures(card).find(([, metric]) => typeof metric.baseline === 'number' && metric.better) ?? figures(card)[0];

export function figure(name, value) {
  if (typeof value !== 'number') return '–';
  return SHARES.test(name) && value >= 0 && value <= 1 ? percent(value) : number(value);
}

export function passport(card) {
  const first = headlineMetric(card);
  return [
    el('div', { class: 'intro' },
      el('div', {}, el('h1', {}, breakable(card.name)), card.about && el('p', { class: 'about', lang: 'en' }, card.about),
        el('p', { class: 'facts' }, facts(card).map((fact) => el('span', {}, fact)))),
      first ? tile(...first) : el('p', { class: 'tile note' }, t('notMeasured'))),
    el('dl', { class: 'origin' }, origin(card).map(([key, value]) => el('div', {}, el('dt', {}, t(key)), el('dd', {}, value)))),
    el('details', {}, el('summary', {}, t('allFigures')), metricTable(card), versions(card)),
  ];
}

function facts(card) {
  return [
    named(card.task),
    card.parameters && t('parameters', { n: number(card.parameters) }),
    card.step && t('step', { n: number(card.step) }),
  ].filter(Boolean);
}

// A metric beside its baseline: two numbers, and a bar with a tick.
function tile(name, metric) {
  const known = typeof metric.baseline === 'number';
  return el('div', { class: 'tile' },
    el('p', { class: 'value' }, figure(name, metric.value)),
    el('p', {}, t('onTest', { name: named(name) })),
    known && bar(name, metric),
    known && el('small', {}, t('baseline', { value: figure(name, metric.baseline) }),
      metric.better === 'lower' ? ` · ${t('lowerBetter')}` : ''));
}

function bar(name, { value, baseline }) {
  const full = Math.max(Math.abs(value), Math.abs(baseline), SHARES.test(name) && value <= 1 ? 1 : 0) || 1;
  const fill = el('i', { class: 'fill' });
  const tick = el('i', { class: 'tick' });
  fill.style.width = `${(100 * Math.abs(value)) / full}%`;
  tick.style.left = `${(100 * Math.abs(baseline)) / full}%`;
  return el('span', { class: 'bar', 'aria-hidden': 'true' }, fill, tick);
}

function origin(card) {
  const made = card.provenance ?? {};
  return [
    ['trained', card.trained && date(card.trained)],
    ['data', brief(made.data)],
    ['config', brief(made.config)],
    ['commit', brief(made.code)],
    ['fingerprint', card.fingerprint && el('code', { title: card.fingerprint }, card.fingerprint.slice(0, 12))],
  ].filter(([, value]) => value);
}

function brief(value) {
  if (value === undefined || value === null || value === '') return null;
  if (typeof value !== 'object') return /^[0-9a-f]{7,}(-dirty)?$/.test(value) ? el('code', {}, value) : breakable(String(value));
  return Object.entries(value).filter(([, inner]) => typeof inner !== 'object')
    .map(([key, inner]) => (key === 'name' ? inner : `${key} ${inner}`)).join(', ').slice(0, 90) || null;
}

function metricTable(card) {
  const rows = figures(card);
  if (!rows.length) return null;
  const head = [['metric', ''], ['value', 'right'], ['baselineOnly', 'right'], ['meaning', '']];
  return el('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': t('table') }, el('table', {},
    el('thead', {}, el('tr', {}, head.map(([key, side]) => el('th', { scope: 'col', class: side }, t(key))))),
    el('tbody', {}, rows.map(([name, metric]) => el('tr', {}, el('th', { scope: 'row' }, named(name)),
      el('td', { class: 'right' }, figure(name, metric.value)), el('td', { class: 'right' }, figure(name, metric.baseline)),
      el('td', { lang: 'en' }, metric.about ?? ''))))));
}

function versions(card) {
  const known = card.provenance?.versions;
  if (!known) return null;
  const text = typeof known === 'object' ? Object.entries(known).map(([name, value]) => `${name} ${value}`).join(' · ') : known;
  return el('p', { class: 'note' }, `${t('versions')}: ${text}`);
}
