// Sounds in the page: recording, decoding to WAV, and drawing the wave.

const LONGEST = 60; // seconds of a recording

// Starts the microphone; gives {sound: promise of a WAV blob, stop}.
export async function record(tick) {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const parts = [];
  const start = Date.now();
  const clock = setInterval(() => {
    const seconds = Math.floor((Date.now() - start) / 1000);
    tick(seconds);
    if (seconds >= LONGEST) stop();
  }, 250);
  const stop = () => recorder.state !== 'inactive' && recorder.stop();
  const sound = new Promise((resolve, reject) => {
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      clearInterval(clock);
      for (const track of stream.getTracks()) track.stop();
      decoded(new Blob(parts, { type: recorder.mimeType })).then(resolve, reject);
    };
  });
  recorder.start();
  tick(0);
  return { sound, stop };
}

const context = () => new OfflineAudioContext(1, 1, 48000);

// Any sound that the browser reads, as WAV: one channel, 16 bits.
export async function decoded(blob) {
  const buffer = await context().decodeAudioData(await blob.arrayBuffer());
  return wav(mixed(buffer), buffer.sampleRate);
}

function mixed(buffer) {
  const samples = new Float32Array(buffer.length);
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    buffer.getChannelData(channel).forEach((value, k) => (samples[k] += value / buffer.numberOfChannels));
  }
  return samples;
}

export function wav(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + samples.length * 2));
  const text = (at, letters) => [...letters].forEach((letter, k) => view.setUint8(at + k, letter.charCodeAt(0)));
  const word = (at, value) => view.setUint32(at, value, true);
  const half = (at, value) => view.setUint16(at, value, true);
  text(0, 'RIFF');
  word(4, 36 + samples.length * 2);
  text(8, 'WAVEfmt ');
  word(16, 16);
  half(20, 1);
  half(22, 1);
  word(24, rate);
  word(28, rate * 2);
  half(32, 2);
  half(34, 16);
  text(36, 'data');
  word(40, samples.length * 2);
  samples.forEach((value, k) => view.setInt16(44 + 2 * k, Math.max(-1, Math.min(1, value)) * 32767, true));
  return new Blob([view], { type: 'audio/wav' });
}

// Draws the largest values of a sound in bars; leaves the canvas empty where the browser cannot read it.
export async function wave(canvas, blob) {
  try {
    const samples = mixed(await context().decodeAudioData(await blob.arrayBuffer()));
    const bars = canvas.width / 5;
    const size = Math.max(1, Math.floor(samples.length / bars));
    const heights = Array.from({ length: bars }, (_, k) =>
      samples.subarray(k * size, (k + 1) * size).reduce((most, value) => Math.max(most, Math.abs(value)), 0));
    const scale = (canvas.height - 4) / Math.max(...heights, 0.01);
    const paint = canvas.getContext('2d');
    paint.fillStyle = getComputedStyle(canvas).color;
    heights.forEach((height, k) => paint.fillRect(k * 5, (canvas.height - height * scale - 2) / 2, 3, height * scale + 2));
  } catch {
    canvas.hidden = true;
  }
}
