// Requests to this server; addresses are relative, so that the page also works below a prefix.

let token = '';

export function setToken(value) {
  token = value;
}

export const hasToken = () => token !== '';

export const base = () => new URL('.', location.href.split('#')[0].split('?')[0]).href.replace(/\/$/, '');

export class Failure extends Error {
  constructor(status, message, field = '', retryAfter = 0) {
    super(message);
    Object.assign(this, { status, field, retryAfter });
  }
}

async function send(path, body, signal) {
  const headers = { Accept: 'application/json' };
  if (body) headers['Content-Type'] = 'application/json';
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { method: body ? 'POST' : 'GET', headers, signal, body: body && JSON.stringify(body) });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new Failure(0, '');
  }
  if (response.ok) return response;
  let error = {};
  try {
    error = (await response.json()).error || {};
  } catch {
    // not JSON: the status must do
  }
  const retry = Number(response.headers.get('Retry-After')) || 0;
  throw new Failure(response.status, error.message || response.statusText, error.field, retry);
}

export async function call(path, body, signal) {
  const response = await send(path, body, signal);
  return response.json();
}

// Yields the JSON of each event of a stream until [DONE].
export async function* events(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = '';
  try {
    while (true) {
      const { value, done } = await reader.read();
      if (done) throw new Failure(0, '');
      waiting += value.replaceAll('\r', '');
      const blocks = waiting.split('\n\n');
      waiting = blocks.pop();
      for (const block of blocks) {
        const data = block.split('\n').filter((line) => line.startsWith('data:'));
        if (!data.length) continue;
        const text = data.map((line) => line.slice(5).replace(/^ /, '')).join('\n');
        if (text === '[DONE]') return;
        const event = JSON.parse(text);
        if (event.error) throw new Failure(500, event.error.message, event.error.field);
        yield event;
      }
    }
  } catch (error) {
    if (error.name === 'AbortError' || error instanceof Failure) throw error;
    throw new Failure(0, '');
  } finally {
    reader.cancel().catch(() => {});
  }
}
