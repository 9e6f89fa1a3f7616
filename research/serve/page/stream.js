// A text as it is written: tokens with their probabilities, under the pointer and in a table.
import { byId, el, number, percent, t } from './dom.js';

// A growing text. add(event) appends text nodes; finish() adds the table of tokens.
export function streamView(record) {
  const output = el('p', { class: 'text', dir: 'auto', tabindex: 0 });
  const before = Object.values(record.inputs).find((value) => typeof value === 'string');
  if (record.card.task === 'language_model') output.append(el('span', { class: 'before' }, before ?? ''));
  const view = el('div', { class: 'stream' }, output);
  const add = (event, first) => output.append(...pieces(event, first));
  record.events.forEach((event) => add(event, event.first));
  output.addEventListener('pointerover', (pointer) => tip(pointer, record));
  output.addEventListener('pointerleave', hideTip);
  const finish = () => record.tokens.length && view.append(tokenTable(record));
  return { view, add, finish };
}

// A span for each token of an event; one for all where the tokens are parts of characters.
function pieces(event, first) {
  const tokens = event.tokens ?? [];
  const span = (text, k) => el('span', { class: `token p${level(tokens[k].logprob)}`, 'data-index': first + k }, text);
  if (!tokens.length) return [event.text];
  if (tokens.map((token) => token.text).join('') !== event.text) return [span(event.text, tokens.length - 1)];
  return tokens.map((token, k) => span(token.text, k));
}

// 0: certain ... 4: unlikely.
const level = (logprob) => [0.9, 0.6, 0.3, 0.1].filter((bound) => Math.exp(logprob) < bound).length;

const visible = (text) => text.replaceAll('\n', '↵').replaceAll('\t', '⇥').replaceAll(' ', '␣') || '∅';

function tip(pointer, record) {
  const token = record.tokens[pointer.target.dataset?.index];
  if (!token || token.logprob === undefined) return hideTip();
  const box = byId('tip') ?? document.body.appendChild(el('div', { id: 'tip', 'aria-hidden': 'true' }));
  box.replaceChildren(...alternatives(token).map(({ text, logprob, chosen }) =>
    el('div', { class: chosen ? 'chosen' : null }, el('code', {}, visible(text)), el('b', {}, percent(Math.exp(logprob))))));
  const place = pointer.target.getBoundingClientRect();
  box.hidden = false;
  box.style.left = `${Math.max(8, Math.min(place.left, innerWidth - box.offsetWidth - 8))}px`;
  const below = place.bottom + 6;
  const top = below + box.offsetHeight > innerHeight ? place.top - box.offsetHeight - 6 : below;
  box.style.top = `${top}px`;
}

export function hideTip() {
  if (byId('tip')) byId('tip').hidden = true;
}

// The chosen token among the most probable ones, in their order.
function alternatives(token) {
  const top = (token.top ?? []).map((other) => ({ ...other, chosen: other.text === token.text }));
  if (top.some((other) => other.chosen)) return top;
  return [...top, { text: token.text, logprob: token.logprob, chosen: true }];
}

function tokenTable(record) {
  const body = el('tbody');
  const details = el('details', { class: 'tokens' }, el('summary', {}, t('tokens', { n: number(record.tokens.length) })),
    el('div', { class: 'scroll tall', tabindex: 0, role: 'group', 'aria-label': t('table') }, el('table', {},
      el('thead', {}, el('tr', {}, ['place', 'token_', 'probability', 'others'].map((key) =>
        el('th', { scope: 'col', class: key === 'probability' ? 'right' : null }, t(key))))), body)));
  details.addEventListener('toggle', () => {
    if (!details.open || body.childElementCount) return;
    body.append(...record.tokens.map((token, k) => el('tr', {}, el('td', {}, number(k + 1)),
      el('th', { scope: 'row' }, el('code', {}, visible(token.text))),
      el('td', { class: 'right' }, token.logprob === undefined ? '' : percent(Math.exp(token.logprob))),
      el('td', {}, alternatives(token).filter((other) => !other.chosen).slice(0, 4)
        .map((other) => `${visible(other.text)} ${percent(Math.exp(other.logprob))}`).join(' · ')))));
  });
  return details;
}
