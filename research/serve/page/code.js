// A request as code: exactly what the page sends, for curl, Python and the openai client.
import { base, hasToken } from './api.js';
import { draws } from './form.js';
import { isMedia } from './media.js';

const INLINE = 400; // characters of base64 that are written into the code; longer files are read from disk
const mark = (n) => `@@file${n}@@`;

// {path, body} that the page sends for the values of a form; pictures and sounds become base64.
export function requestOf(card, values, settings, onMedia = (media) => media.base64) {
  const plain = (value) => {
    if (isMedia(value)) return onMedia(value);
    if (Array.isArray(value)) return value.map(plain);
    if (value && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, plain(v)]));
    return value;
  };
  const { count = 1, seed = 0, ...sampling } = settings;
  const path = `models/${card.name}/`;
  const inputs = plain(values);
  if (card.generates) return { path: path + 'generate', body: { inputs, ...sampling, seed, top_logprobs: 5, stream: true } };
  if (!draws(card)) return { path: path + 'predict', body: { inputs } };
  const request = (k) => ({ inputs: card.inputs.seed ? { ...inputs, seed: seed + k } : inputs, seed: seed + k });
  if (count === 1) return { path: path + 'predict', body: request(0) };
  return { path: path + 'predict:batch', body: { requests: Array.from({ length: count }, (_, k) => request(k)) } };
}

// The names of the tabs for a model.
export const languages = (card) => ['curl', 'Python', ...(card.generates || pictures(card) ? ['openai'] : [])];

const pictures = (card) => draws(card) && card.task === 'image_generation';

export function snippet(language, card, values, settings) {
  const files = [];
  const onMedia = (media) => {
    if (media.base64.length <= INLINE) return media.base64;
    files.push(media.name || (media.media_type?.startsWith('audio') ? 'sound.wav' : 'picture.png'));
    return mark(files.length - 1);
  };
  const request = requestOf(card, values, settings, onMedia);
  return { curl, Python: python, openai }[language](request, files, card, settings);
}

function curl({ path, body }, files) {
  const key = hasToken() ? `  -H "Authorization: Bearer $TESSERA_TOKEN" \\\n` : '';
  const stream = body.stream ? '-N ' : '';
  const head = `curl -s ${stream}${quoted(`${base()}/${path}`)} \\\n${key}  -H 'Content-Type: application/json' \\\n`;
  const json = JSON.stringify(body);
  if (!files.length) return `${head}  -d ${quoted(json)}`;
  const text = files.reduce((all, name, k) => all.replace(mark(k), () => `$(base64 < ${quoted(name)} | tr -d '\\n')`),
    json.replace(/[\\$`]/g, '\\$&'));
  return `${head}  --data-binary @- <<END\n${text}\nEND`;
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

function python({ path, body }, files) {
  const standard = [files.length && 'base64', body.stream && 'json', hasToken() && 'os', files.length && 'pathlib'];
  const imports = standard.filter(Boolean).map((name) => `import ${name}\n`).join('');
  const reader = 'def read(path):\n    return base64.b64encode(pathlib.Path(path).read_bytes()).decode()\n\n\n';
  const literal = files.reduce((all, name, k) => all.replace(`"${mark(k)}"`, () => `read(${JSON.stringify(name)})`), literalOf(body));
  const token = hasToken() ? `,\n    headers={'Authorization': 'Bearer ' + os.environ['TESSERA_TOKEN']}` : '';
  const options = `json=body${token}${body.stream ? ', stream=True' : ''}, timeout=60`;
  const shown = body.stream
    ? `for line in response.iter_lines():\n    if line.startswith(b'data: {'):\n` +
      `        print(json.loads(line[6:])['text'], end='', flush=True)`
    : `print(response.json()['${body.requests ? 'answers' : 'answer'}'])`;
  return `${imports}${imports && '\n'}import requests\n\n${files.length ? `\n${reader}` : ''}body = ${literal}\n` +
    `response = requests.post('${base()}/${path}', ${options})\nresponse.raise_for_status()\n${shown}`;
}

// A JSON value as a Python literal, on several lines where one would be long.
function literalOf(value, indent = '') {
  const one = inline(value);
  if (one.length + indent.length <= 96 || value === null || typeof value !== 'object') return one;
  const inner = indent + '    ';
  const entry = ([key, item]) => `${inner}${Array.isArray(value) ? '' : `${JSON.stringify(key)}: `}${literalOf(item, inner)},`;
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  return `${open}\n${Object.entries(value).map(entry).join('\n')}\n${indent}${close}`;
}

function inline(value) {
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (Array.isArray(value)) return `[${value.map(inline).join(', ')}]`;
  if (typeof value !== 'object') return JSON.stringify(value);
  return `{${Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${inline(item)}`).join(', ')}}`;
}

function openai({ body }, files, card, settings) {
  const key = hasToken() ? `os.environ['TESSERA_TOKEN']` : `'none'`;
  const head = `${hasToken() ? 'import os\n\n' : ''}from openai import OpenAI\n\nclient = OpenAI(base_url='${base()}/v1', api_key=${key})\n`;
  if (pictures(card)) {
    const label = (body.requests?.[0] ?? body).inputs.label ?? '';
    return `${head}pictures = client.images.generate(\n    model=${JSON.stringify(card.name)}, prompt=${JSON.stringify(String(label))}, ` +
      `n=${settings.count ?? 1}, response_format='b64_json',\n    extra_body={'seed': ${settings.seed ?? 0}},\n)\n` +
      `print([len(picture.b64_json) for picture in pictures.data])`;
  }
  const prompt = Object.values(body.inputs).find((value) => typeof value === 'string') ?? '';
  const { max_tokens, temperature, top_p, top_k, seed } = body;
  const options = Object.entries({ max_tokens, temperature, top_p, seed }).filter(([, value]) => value !== undefined);
  const extra = top_k === undefined ? '' : `    extra_body={'top_k': ${top_k}},\n`;
  return `${head}stream = client.completions.create(\n    model=${JSON.stringify(card.name)}, prompt=${JSON.stringify(prompt)},\n` +
    `    ${options.map(([name, value]) => `${name}=${value}`).join(', ')}, stream=True,\n${extra})\n` +
    `for part in stream:\n    print(part.choices[0].text, end='', flush=True)`;
}
