// Fields for pictures and sounds: a file, drop, paste, the camera, the microphone. A value is {base64, media_type, name}.
import { Problem, el, number, t, word } from './dom.js';
import { frame, newId } from './form.js';
import { decoded, record, wave } from './sound.js';

const LARGEST = 7.4e6; // bytes: base64 of more does not fit a request of 10 MB
const PLAIN_SOUNDS = ['audio/wav', 'audio/x-wav', 'audio/wave', 'audio/flac', 'audio/ogg'];

export const isMedia = (value) => typeof value?.base64 === 'string';

export async function fromBlob(blob, name) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  let text = '';
  for (let at = 0; at < bytes.length; at += 32768) text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return { base64: btoa(text), media_type: blob.type || 'application/octet-stream', name };
}

export function toBlob(media) {
  const bytes = Uint8Array.from(atob(media.base64), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: media.media_type || 'application/octet-stream' });
}

const bytesText = (media) => {
  const kilobytes = (media.base64.length * 3) / 4 / 1000;
  return kilobytes < 1000 ? `${number(kilobytes, 2)} kB` : `${number(kilobytes / 1000, 2)} MB`;
};

// What picture and sound share: a drop zone with a file input, and its value.
function mediaField(name, spec, { accept, empty, preview, extra, convert }) {
  let value;
  const input = el('input', { type: 'file', accept, id: newId() });
  const shown = el('div', { class: 'preview', hidden: true });
  const hint = el('p', { class: 'empty', t: empty });
  const remove = el('button', { type: 'button', class: 'quiet', t: 'remove', hidden: true });
  const choose = el('span', { class: 'button' }, el('span', { t: 'choose' }), input);
  const zone = el('div', { class: 'drop' }, shown, hint, el('div', { class: 'row' }, choose, extra?.(take, zoneSlot), remove));
  const element = frame(name, spec, input, zone);

  function zoneSlot(node) {
    zone.prepend(node);
  }
  function set(next) {
    value = isMedia(next) ? next : undefined;
    hint.hidden = Boolean(value);
    shown.hidden = remove.hidden = !value;
    shown.replaceChildren(...(value ? preview(value) : []));
    input.value = '';
  }
  async function take(blob, fileName) {
    const error = element.querySelector('.error');
    error.textContent = '';
    try {
      const ready = convert ? await convert(blob) : blob;
      if (ready.size > LARGEST) throw new Problem('tooLarge');
      set(await fromBlob(ready, ready === blob ? fileName : fileName.replace(/\.\w+$/, '') + '.wav'));
      element.dispatchEvent(new Event('change', { bubbles: true }));
    } catch (problem) {
      word(error, problem instanceof Problem ? problem.message : 'notRead');
    }
  }
  input.addEventListener('change', () => input.files[0] && take(input.files[0], input.files[0].name));
  remove.addEventListener('click', () => {
    set();
    element.dispatchEvent(new Event('change', { bubbles: true }));
    input.focus();
  });
  for (const event of ['dragover', 'dragleave', 'drop']) {
    zone.addEventListener(event, (e) => {
      e.preventDefault();
      zone.classList.toggle('over', event === 'dragover');
      if (event === 'drop' && e.dataTransfer.files[0]) take(e.dataTransfer.files[0], e.dataTransfer.files[0].name);
    });
  }
  return { element, control: input, get: () => value, set, take };
}

export function imageField(name, spec) {
  const preview = (media) => {
    const img = picture(media, t('yourPicture'));
    const note = el('small', {}, bytesText(media));
    img.addEventListener('load', () => {
      note.textContent = `${img.naturalWidth} × ${img.naturalHeight} · ${bytesText(media)}`;
    });
    return [img, el('p', {}, media.name ? el('span', {}, media.name) : null, ' ', note)];
  };
  return mediaField(name, spec, { accept: 'image/*', empty: 'dropPicture', preview, extra: camera });
}

// An <img> of a value; small pictures are enlarged in whole pixels.
export function picture(media, alt) {
  const img = el('img', { alt, src: `data:${media.media_type || 'image/png'};base64,${media.base64}` });
  img.addEventListener('load', () => {
    const side = Math.max(img.naturalWidth, img.naturalHeight);
    if (side >= 160) return;
    img.classList.add('pixels');
    img.width = img.naturalWidth * Math.max(1, Math.floor(192 / side));
  });
  return img;
}

function camera(take, place) {
  if (!navigator.mediaDevices?.getUserMedia) return null;
  const video = el('video', { playsinline: true, t: 'cameraView', attribute: 'aria-label' });
  video.muted = true;
  const snap = el('button', { type: 'button', class: 'primary', t: 'snap' });
  const cancel = el('button', { type: 'button', class: 'quiet', t: 'cancel' });
  const live = el('div', { class: 'live', hidden: true }, video, el('div', { class: 'row' }, snap, cancel));
  const open = el('button', { type: 'button', t: 'camera' });
  let stream = null;
  const close = () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    stream = null;
    live.hidden = true;
    open.focus();
  };
  open.addEventListener('click', async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
    } catch {
      return word(open.closest('.field').querySelector('.error'), 'noCamera');
    }
    if (!live.isConnected) place(live);
    live.hidden = false;
    video.srcObject = stream;
    await video.play();
    snap.focus();
  });
  snap.addEventListener('click', () => {
    const canvas = el('canvas', { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext('2d').drawImage(video, 0, 0);
    canvas.toBlob((blob) => take(blob, 'camera.jpg'), 'image/jpeg', 0.92);
    close();
  });
  cancel.addEventListener('click', close);
  live.addEventListener('keydown', (event) => event.key === 'Escape' && close());
  return open;
}

export function audioField(name, spec) {
  const preview = (media) => [player(media), el('p', {}, media.name ? el('span', {}, media.name) : null, ' ',
    el('small', {}, bytesText(media)))];
  const convert = async (blob) => (PLAIN_SOUNDS.includes(blob.type) ? blob : decoded(blob));
  return mediaField(name, spec, { accept: 'audio/*', empty: 'dropSound', preview, extra: microphone, convert });
}

// A player with the wave above it and a link that saves the sound.
export function player(media) {
  const blob = toBlob(media);
  const url = URL.createObjectURL(blob);
  const canvas = el('canvas', { class: 'wave', width: 640, height: 72, 'aria-hidden': 'true' });
  wave(canvas, blob);
  const audio = el('audio', { controls: true, src: url, t: 'sound', attribute: 'aria-label' });
  return el('div', { class: 'player' }, canvas, audio, el('a', { href: url, download: media.name || 'sound.wav', t: 'save' }));
}

function microphone(take) {
  if (!navigator.mediaDevices?.getUserMedia || !window.MediaRecorder) return null;
  const button = el('button', { type: 'button', class: 'record', t: 'record' });
  let stop = null;
  button.addEventListener('click', async () => {
    if (stop) return stop();
    try {
      const running = await record((seconds) => word(button, 'recording', { n: seconds }));
      stop = running.stop;
      button.classList.add('on');
      await take(await running.sound, 'recording.wav');
    } catch {
      word(button.closest('.field').querySelector('.error'), 'noMicrophone');
    }
    stop = null;
    button.classList.remove('on');
    word(button, 'record');
  });
  button.addEventListener('keydown', (event) => event.key === 'Escape' && stop?.());
  return button;
}
