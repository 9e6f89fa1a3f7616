// Elements, words in the language of the page, and numbers.
import { words } from './words.js';

let language = 'en';
let locale = 'en';

// A mistake of the visitor; the message is the key of a word.
export class Problem extends Error {}

export const current = () => language;
export const time = (when) => new Intl.DateTimeFormat(locale, { timeStyle: 'short' }).format(when);

// The language of the address (?lang=), or the first of the browser's languages that the page has.
export function preferred() {
  const wanted = [new URLSearchParams(location.search).get('lang'), ...navigator.languages];
  const known = wanted.map((tag) => (tag || '').toLowerCase().split('-')[0]).filter((tag) => tag in words);
  return known[0] || 'en';
}

export function setLanguage(name) {
  language = name;
  locale = navigator.languages.find((tag) => tag.toLowerCase().startsWith(name)) ?? name;
  document.documentElement.lang = name === 'zh' ? 'zh-Hans' : name;
  translate(document.body);
}

export function t(key, values = {}) {
  const text = words[language][key] ?? words.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? '');
}

// A name from the server, such as of a metric or a task: translated if known, else with spaces.
export function named(name) {
  const plain = String(name).replaceAll('_', ' ');
  return words[language].names?.[name] ?? plain;
}

// Fills in every element that `el` or the HTML marked with a key.
export function translate(root) {
  for (const element of root.querySelectorAll('[data-t]')) {
    const text = t(element.dataset.t, JSON.parse(element.dataset.values || '{}'));
    if (element.dataset.attribute) element.setAttribute(element.dataset.attribute, text);
    else element.textContent = text;
  }
}

// el('p', {class: 'note', t: 'seed', values: {n: 3}, attribute: 'title', onclick: run}, child, ...)
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false || name === 'values') continue;
    if (name === 't') word(element, value, attributes.values, attributes.attribute);
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name !== 'attribute') element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// Sets the text (or an attribute) of an element to a word that follows the language.
export function word(element, key, values = {}, attribute = '') {
  element.dataset.t = key;
  element.dataset.values = JSON.stringify(values);
  if (attribute) element.dataset.attribute = attribute;
  if (attribute) element.setAttribute(attribute, t(key, values));
  else element.textContent = t(key, values);
  return element;
}

// A name that may break after _ / and :
export const breakable = (name) => name.split(/(?<=[_/:])/).flatMap((part) => [part, document.createElement('wbr')]);

export const byId = (id) => document.getElementById(id);

export function number(value, digits = 4) {
  if (!Number.isFinite(value)) return String(value);
  const small = value !== 0 && Math.abs(value) < 1e-4;
  if (small) return value.toExponential(2);
  const options = Math.abs(value) >= 10 ** digits ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: digits };
  return new Intl.NumberFormat(locale, Number.isInteger(value) ? {} : options).format(value);
}

export function percent(share) {
  const digits = share > 0.9995 || share < 0.0005 ? 2 : 1;
  const options = { style: 'percent', minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(locale, options).format(share);
}

export function date(iso) {
  const parsed = new Date(iso);
  if (Number.isNaN(parsed.valueOf())) return String(iso ?? '');
  return new Intl.DateTimeFormat(locale, { dateStyle: 'long' }).format(parsed);
}

export function shortened(text, limit = 60) {
  const letters = Array.from(String(text).replace(/\s+/g, ' ').trim());
  return letters.length > limit ? letters.slice(0, limit - 1).join('') + '…' : letters.join('');
}

// One polite region for the whole page: whole sentences only.
export function announce(text) {
  byId('status').textContent = text;
}
