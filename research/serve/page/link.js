// The address of an input: everything is in the fragment, which browsers do not send to the server.
import { isMedia } from './media.js';

const LONGEST = 6000; // characters of a link that every program passes on

export function readLink(fragment) {
  const parts = new URLSearchParams(fragment.replace(/^#/, ''));
  return {
    model: parts.get('model') ?? '', inputs: parsed(parts.get('inputs')), settings: parsed(parts.get('settings')),
    compare: parts.get('compare') ?? '',
  };
}

function parsed(text) {
  try {
    const value = JSON.parse(text ?? 'null');
    return value && typeof value === 'object' && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

// {address, whole}: files are left out of a link that would be too long.
export function writeLink(model, { values, settings }, compare) {
  const build = (inputs) => {
    const parts = new URLSearchParams({ model, inputs: JSON.stringify(inputs) });
    if (Object.keys(settings).length) parts.set('settings', JSON.stringify(settings));
    if (compare) parts.set('compare', compare);
    return `${location.pathname}${location.search}#${parts}`;
  };
  const full = build(values);
  if (full.length <= LONGEST) return { address: full, whole: true };
  const small = Object.fromEntries(Object.entries(values).filter(([, value]) => !isMedia(value)));
  return { address: build(small), whole: false };
}
