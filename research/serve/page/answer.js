// Answers, shown by their form and not by the name of the task: classes, spans, texts, pictures, sounds, tables, JSON.
import { el, named, number, percent, shortened, t } from './dom.js';
import { isMedia, picture, player } from './media.js';

const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isPlain = (value) => value === null || typeof value !== 'object';
const shares = (object) => isObject(object) && Object.values(object).every((v) => typeof v === 'number' && v >= 0 && v <= 1);
const end = (answer) => answer.stop ?? answer.end;

// Nodes for an answer. `context`: {inputs: the values sent, card}.
export function showAnswer(value, context) {
  if (isPlain(value)) return [el('p', { class: 'headline' }, plain(value))];
  if (isMedia(value)) return [media(value, '', context)];
  if (Array.isArray(value)) return showList(value, context);
  const rest = { ...value };
  const nodes = [];
  const use = (names, made) => {
    for (const name of names) delete rest[name];
    nodes.push(...made);
  };
  if (value.top?.[0]?.label !== undefined) use(['label', 'probability', 'top'], classes(value.top));
  if (Array.isArray(value.labels) && shares(value.probability)) use(['labels', 'probability'], labels(value));
  if (typeof value.start === 'number' && typeof end(value) === 'number') {
    use(['answer', 'start', 'stop', 'end', 'text', 'probability', 'score'], span(value, context));
  } else if (value.answer === '') use(['answer', 'start', 'stop'], [el('p', { class: 'headline' }, t('noAnswer'))]);
  if (Array.isArray(value.candidates?.[0])) use(['candidates', 'text', 'masked'], masks(value));
  if (typeof rest.text === 'string') {
    const before = value.prompt ?? '';
    use(['text', 'prompt', 'source'], [text(rest.text, before)]);
  }
  return [...nodes, ...others(rest, context)];
}

// One line for the history and for screen readers.
export function summary(value) {
  if (isPlain(value)) return plain(value);
  if (isMedia(value)) return t(value.type === 'audio' ? 'sound' : 'picture');
  if (Array.isArray(value)) return value.length === 1 ? summary(value[0]) : t('items', { n: number(value.length) });
  if (value.label !== undefined && typeof value.probability === 'number') {
    return `${value.label}, ${percent(value.probability)}`;
  }
  if (Array.isArray(value.labels)) return value.labels.join(', ') || t('noLabel');
  const first = value.answer ?? value.text ?? Object.values(value)[0];
  if (first === '') return t(value.answer === '' ? 'noAnswer' : 'emptyText');
  return first === undefined ? '' : shortened(summary(first), 300);
}

const plain = (value) => (typeof value === 'number' ? number(value, 6) : String(value));

function showList(values, context) {
  if (values.every(isMedia)) return [el('div', { class: 'gallery' }, values.map((value, k) => media(value, k + 1, context)))];
  if (values.length && values.every((value) => isObject(value) && Object.values(value).every(isPlain))) return [table(values)];
  if (values.length && values.every((value) => isMedia(value?.image))) {
    return [el('div', { class: 'gallery' }, values.map((value, k) => media(value.image, value.label ?? k + 1, context)))];
  }
  if (values.every(isPlain)) return [el('p', {}, values.map(plain).join(', '))];
  if (values.some((value) => Array.isArray(value))) return [el('pre', { tabindex: 0 }, JSON.stringify(values))];
  return [el('ol', { class: 'plain' }, values.map((value) => el('li', {}, showAnswer(value, context))))];
}

// Remaining fields: short values in a list, pictures in a gallery, the rest below headings.
function others(fields, context) {
  const entries = Object.entries(fields);
  const short = entries.filter(([, value]) => isPlain(value));
  const pictures = entries.filter(([, value]) => isMedia(value));
  const long = entries.filter(([, value]) => !isPlain(value) && !isMedia(value));
  const lone = entries.length === 1 && short.length === 1;
  return [
    pictures.length > 0 && el('div', { class: 'gallery' }, pictures.map(([name, value]) => media(value, name, context))),
    lone && el('p', { class: 'headline' }, plain(short[0][1])),
    short.length > 0 && !lone && el('dl', { class: 'values' }, short.map(([name, value]) =>
      el('div', {}, el('dt', {}, named(name)), el('dd', {}, plain(value))))),
    long.map(([name, value]) => el('div', { class: 'part' }, el('h3', {}, named(name)), showAnswer(value, context))),
  ].flat().filter(Boolean);
}

const headline = (text, share) => el('p', { class: 'headline', dir: 'auto' }, text, ' ',
  share === undefined ? null : el('small', {}, percent(share)));

function bars(rows) {
  return el('ol', { class: 'bars' }, rows.map(({ name, share, chosen }) => {
    const fill = el('i', {});
    fill.style.width = `${100 * share}%`;
    return el('li', { class: chosen ? 'chosen' : null }, el('span', { dir: 'auto' }, name),
      el('span', { class: 'track', 'aria-hidden': 'true' }, fill), el('b', {}, percent(share)));
  }));
}

function classes(top) {
  const rows = top.map(({ label, probability }, k) => ({ name: label, share: probability, chosen: k === 0 }));
  return [headline(top[0].label, top[0].probability), bars(rows)];
}

function labels(value) {
  const rows = Object.entries(value.probability).map(([name, share]) => ({ name, share, chosen: value.labels.includes(name) }));
  rows.sort((a, b) => b.share - a.share);
  return [headline(value.labels.join(', ') || t('noLabel')), bars(rows.slice(0, 20))];
}

// The answer, and the text it was found in with the answer marked; places count code points.
function span(value, context) {
  const answer = value.answer ?? value.text;
  const holds = (text) => typeof text === 'string' &&
    (answer === undefined || Array.from(text).slice(value.start, end(value)).join('') === answer);
  const source = Object.values(context.inputs).filter(holds).sort((a, b) => b.length - a.length)[0];
  const shown = [headline(answer, value.probability)];
  if (source === undefined) return shown;
  const letters = Array.from(source);
  const part = (from, to) => letters.slice(from, to).join('');
  const found = el('mark', {}, part(value.start, end(value)));
  const box = el('p', { class: 'context', dir: 'auto', tabindex: 0 }, part(0, value.start), found, part(end(value)));
  requestAnimationFrame(() => (box.scrollTop = found.offsetTop - box.offsetTop - box.clientHeight / 2));
  return [...shown, box];
}

function masks(value) {
  const places = value.candidates.map((rows, k) => el('div', { class: 'part' }, el('h3', {}, t('gap', { n: k + 1 })),
    bars(rows.map((row, rank) => ({ name: row.token, share: row.probability, chosen: rank === 0 })))));
  return [text(value.text), ...places];
}

export function text(content, before = '') {
  if (!content && !before) return el('p', { class: 'note' }, t('emptyText'));
  return el('p', { class: 'text', dir: 'auto', tabindex: 0 }, before && el('span', { class: 'before' }, before), content);
}

function media(value, name, context) {
  const title = typeof name === 'number' ? t('numbered', { n: name }) : named(name);
  const by = context.card.name;
  const shown = value.type === 'audio' ? player(value)
    : picture(value, t('altPicture', { name: title, width: value.width ?? '', height: value.height ?? '', by }));
  const caption = typeof name === 'number' || !title ? null : el('figcaption', {}, title);
  return el('figure', {}, shown, caption);
}

function table(values) {
  const names = [...new Set(values.flatMap((value) => Object.keys(value)))];
  const cell = (name, value) => {
    if (typeof value !== 'number') return el('td', {}, value === undefined ? '' : plain(value));
    if (name !== 'probability') return el('td', { class: 'right' }, number(value));
    const shown = el('td', { class: 'right share' }, percent(value));
    shown.style.setProperty('--share', `${100 * value}%`);
    return shown;
  };
  const head = names.map((name) => el('th', { scope: 'col', class: typeof values[0][name] === 'number' ? 'right' : null }, named(name)));
  const body = values.map((value) => el('tr', {}, names.map((name) => cell(name, value[name]))));
  return el('div', { class: 'scroll', tabindex: 0, role: 'group', 'aria-label': t('table') },
    el('table', {}, el('thead', {}, el('tr', {}, head)), el('tbody', {}, body)));
}
