// The form of a model, made from the `inputs` of its card.
import { audioField, imageField } from './media.js';
import { Problem, el, named, number, word } from './dom.js';

const RADIOS = 6; // a category with at most this many choices shows them all
const NEEDED = ['text', 'sequence', 'image', 'audio', 'array', 'list'];
let counter = 0;

export const newId = () => `f${++counter}`;

// Whether a model draws its input: no fields, or a seed among them.
export const draws = (card) => !Object.keys(card.inputs).length || card.inputs.seed?.kind === 'number';

// The fields that a person fills in: not a seed, which has a control of its own, nor the rate of samples.
export function shownFields(card) {
  const sound = Object.values(card.inputs).some((spec) => spec.kind === 'audio');
  const hidden = (name) => (name === 'seed' && draws(card)) || (name === 'rate' && sound);
  return Object.entries(card.inputs).filter(([name]) => !hidden(name));
}

// A field is {element, get() -> value or undefined, set(value), control}; get throws a Problem for bad input.
export function buildForm(card) {
  const specs = shownFields(card);
  const fields = {};
  for (const [name, spec] of specs) fields[name] = build(name, { ...spec, choices: spec.choices ?? card.choices?.[name] });
  const settings = settingFields(card);
  const small = specs.filter(([, spec]) => ['number', 'category'].includes(spec.kind)).length;
  const minor = (name) => draws(card) && card.inputs[name].kind === 'number';
  const shown = Object.keys(fields).filter((name) => !minor(name)).map((name) => fields[name].element);
  const grid = el('div', { class: small > 2 ? 'grid' : 'stack' }, shown);
  const first = settings.count ? el('div', { class: 'grid' }, settings.count.element, settings.seed.element) : null;
  const more = [...Object.entries(fields).filter(([name]) => minor(name)),
    ...Object.entries(settings).filter(([name]) => !settings.count || !['count', 'seed'].includes(name))];
  const drawer = more.length > 0 && el('details', {}, el('summary', { t: 'settings' }),
    el('div', { class: 'grid' }, more.map(([, field]) => field.element)));
  return { element: el('div', { class: 'stack' }, first, shown.length > 0 && grid, drawer), fields, settings, needed: neededNames(specs) };
}

// A lone field of these kinds must be filled in; of several some may be optional, which the server decides.
function neededNames(specs) {
  const names = specs.filter(([, spec]) => NEEDED.includes(spec.kind)).map(([name]) => name);
  return names.length === 1 ? names : [];
}

// {values, settings} of a form; marks each field that is wrong and gives null then.
export function collect(form) {
  const wrong = [];
  const read = (fields) => Object.fromEntries(Object.entries(fields).flatMap(([name, field]) => {
    mark(field, '');
    try {
      const value = field.get();
      if (value !== undefined) return [[name, value]];
      if (form.needed.includes(name)) throw new Problem('needed');
    } catch (problem) {
      if (!(problem instanceof Problem)) throw problem;
      mark(field, problem.message);
      wrong.push(field);
    }
    return [];
  }));
  const input = { values: read(form.fields), settings: read(form.settings) };
  wrong[0]?.control.focus();
  return wrong.length ? null : input;
}

export function fill(form, values = {}, settings = {}) {
  for (const [name, field] of Object.entries(form.fields)) {
    mark(field, '');
    field.set(values[name]);
  }
  for (const [name, field] of Object.entries(form.settings)) if (name in settings) field.set(settings[name]);
}

// Shows an error beside a field: the key of a word, or a text of the server.
export function mark(field, key, text = '') {
  const line = field.element.querySelector(':scope > .error');
  if (key) word(line, key);
  else {
    delete line.dataset.t;
    line.textContent = text;
    if (text) line.lang = 'en';
  }
  for (const control of field.controls ?? [field.control]) {
    if (key || text) control.setAttribute('aria-invalid', 'true');
    else control.removeAttribute('aria-invalid');
  }
}

function settingFields(card) {
  const plain = (key, options) => numberField(key, { kind: 'number' }, options, true);
  const settings = {};
  if (draws(card)) settings.count = plain('count', { min: 1, max: 32, step: 1, value: 8 });
  if (card.generates) {
    const defaults = card.settings ?? {};
    settings.max_tokens = plain('max_tokens', { min: 1, step: 1, value: defaults.max_tokens });
    settings.temperature = plain('temperature', { min: 0, step: 'any', value: defaults.temperature });
    settings.top_k = plain('top_k', { min: 0, step: 1, value: defaults.top_k });
    settings.top_p = plain('top_p', { min: 0, max: 1, step: 'any', value: defaults.top_p });
  }
  if (draws(card) || card.generates) settings.seed = plain('seed', { min: 0, step: 1, value: 0 });
  return settings;
}

function build(name, spec) {
  const maker = { text: textField, sequence: textField, image: imageField, audio: audioField, category: categoryField,
    number: numberField, list: listField, array: arrayField }[spec.kind];
  return (maker ?? arrayField)(name, spec);
}

// The frame of a field: its label, hint and error, tied to the control.
export function frame(name, spec, control, shown = control, ...more) {
  control.id ||= newId();
  const hint = spec.about ? el('small', { class: 'hint', id: newId(), lang: 'en' }, spec.about) : null;
  const error = el('p', { class: 'error', id: newId(), role: 'alert' });
  control.setAttribute('aria-describedby', [hint?.id, error.id].filter(Boolean).join(' '));
  const label = spec.word ? el('label', { for: control.id, t: spec.word }) : el('label', { for: control.id }, named(name));
  return el('div', { class: `field kind-${spec.kind}` }, label, hint, shown, ...more, error);
}

function textField(name, spec) {
  const letters = spec.kind === 'sequence';
  const control = el('textarea', { rows: 3, dir: 'auto', spellcheck: letters ? 'false' : null,
    autocapitalize: letters ? 'characters' : null, autocomplete: 'off' });
  const count = el('small', { class: 'counter' });
  const recount = () => {
    const length = Array.from(control.value).length;
    word(count, spec.limit ? 'characters' : 'charactersOnly', { n: number(length, 9), limit: number(spec.limit || 0, 9) });
    count.classList.toggle('over', Boolean(spec.limit) && length > spec.limit);
  };
  control.addEventListener('input', recount);
  const set = (value) => {
    control.value = value ?? '';
    recount();
  };
  set('');
  return { element: frame(name, spec, control, control, count), control, set, recount, get: () => control.value || undefined };
}

function numberField(name, spec, options = {}, own = false) {
  const control = el('input', { type: 'number', step: 'any', inputmode: 'decimal', autocomplete: 'off', ...options });
  const element = frame(name, own ? { ...spec, word: name } : spec, control);
  const get = () => {
    if (control.validity.badInput) throw new Problem('notNumber');
    return control.value === '' ? undefined : Number(control.value);
  };
  return { element, control, get, set: (value) => (control.value = value ?? '') };
}

function categoryField(name, spec) {
  if (!spec.choices?.length) {
    const control = el('input', { type: 'text', autocomplete: 'off' });
    return { element: frame(name, spec, control), control, get: () => control.value || undefined,
      set: (value) => (control.value = value ?? '') };
  }
  const choices = spec.choices.map(String);
  const original = (text) => (text === '' ? undefined : spec.choices[choices.indexOf(text)]);
  if (choices.length > RADIOS) {
    const control = el('select', {}, el('option', { value: '', t: 'none' }),
      choices.map((choice) => el('option', { value: choice }, choice)));
    const set = (value) => (control.value = choices.includes(String(value)) ? String(value) : spec.choices[value] ?? '');
    return { element: frame(name, shortHint(spec), control), control, set, get: () => original(control.value) };
  }
  const group = newId();
  const radios = choices.map((choice) => el('input', { type: 'radio', name: group, value: choice }));
  const error = el('p', { class: 'error', id: newId(), role: 'alert' });
  const labels = radios.map((radio, k) => el('label', { class: 'choice' }, radio, el('span', {}, choices[k])));
  const element = el('fieldset', { class: 'field kind-category', 'aria-describedby': error.id },
    el('legend', {}, named(name)), el('div', { class: 'choices' }, labels), error);
  const set = (value) => radios.forEach((radio, k) => (radio.checked = radio.value === String(value) || k === value));
  return { element, control: radios[0], controls: radios, set,
    get: () => original(radios.find((radio) => radio.checked)?.value ?? '') };
}

// The hint of a category only lists its choices, which the control shows.
const shortHint = (spec) => ({ ...spec, about: '' });

function arrayField(name, spec) {
  const control = el('textarea', { rows: 4, spellcheck: 'false', class: 'mono', placeholder: '[[0.1, 0.2], …]' });
  const file = el('input', { type: 'file', accept: '.json,.csv,.txt,application/json,text/csv', id: newId() });
  const shape = spec.shape?.length ? el('small', {}, spec.shape.map((size) => size || '…').join(' × ')) : null;
  file.addEventListener('change', async () => {
    const text = await file.files[0].text();
    control.value = text.trimStart().startsWith('[') ? text : JSON.stringify(rows(text));
  });
  const get = () => {
    if (!control.value.trim()) return undefined;
    try {
      return JSON.parse(control.value);
    } catch {
      throw new Problem('notJson');
    }
  };
  const button = el('label', { class: 'button', for: file.id }, el('span', { t: 'choose' }), file);
  const set = (value) => (control.value = value === undefined ? '' : JSON.stringify(value));
  return { element: frame(name, spec, control, control, el('div', { class: 'row' }, button, shape)), control, get, set };
}

const rows = (text) => text.trim().split(/\n/).map((line) => line.trim().split(/[\s,;]+/).map(Number));

function listField(name, spec) {
  const list = el('ol', { class: 'items' });
  const items = [];
  const error = el('p', { class: 'error', role: 'alert' });
  const remove = (item) => {
    items.splice(items.indexOf(item), 1);
    item.element.remove();
    add.focus();
    add.disabled = false;
  };
  const append = (values = {}) => {
    const fields = Object.entries(spec.items ?? {}).map(([key, inner]) => [key, build(key, inner)]);
    const button = el('button', { type: 'button', class: 'quiet', t: 'remove', onclick: () => remove(item) });
    const item = { fields, element: el('li', {}, el('div', { class: 'grid' }, fields.map(([, f]) => f.element)), button) };
    for (const [key, field] of fields) field.set(values[key]);
    items.push(item);
    list.append(item.element);
    add.disabled = Boolean(spec.limit) && items.length >= spec.limit;
    return item;
  };
  const add = el('button', { type: 'button', t: 'addItem',
    onclick: () => append().fields[0]?.[1].control.focus() });
  const element = el('fieldset', { class: 'field kind-list' }, el('legend', {}, named(name)),
    spec.about ? el('small', { class: 'hint', lang: 'en' }, spec.about) : null, list, add, error);
  const get = () => {
    const values = items.map(({ fields }) => Object.fromEntries(
      fields.map(([key, field]) => [key, field.get()]).filter(([, value]) => value !== undefined)));
    return values.length ? values : undefined;
  };
  const set = (values) => {
    list.replaceChildren();
    items.length = 0;
    for (const value of values?.length ? values : [{}]) append(value);
  };
  set();
  return { element, control: add, get, set };
}
