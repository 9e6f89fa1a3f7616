// Runs the exported model of this folder with onnxruntime-web, in a browser or in Node (npm install onnxruntime-web).
//
//     import * as ort from 'onnxruntime-web/wasm';  import {load, check} from './run.mjs';
//     const get = async (file) => (await fetch(file)).arrayBuffer();        // where the files of this folder are
//     const run = await load(ort, get);
//     const {probability} = await run({image: {data: new Float32Array(64), rows: 1}});
//     console.log(await check(ort, get));                                   // repeats the test vectors
//
// Arrays are already encoded: README.md says what each of them holds. Give {data, rows} by name, get {data, dims}.

const TYPES = {
    F32: Float32Array, I32: Int32Array, U8: Uint8Array, U32: Uint32Array, BOOL: Uint8Array,
    float32: Float32Array, int32: Int32Array, uint8: Uint8Array, uint32: Uint32Array, bool: Uint8Array,
};

// The arrays of a .safetensors file, as {name: {data, dims}}.
export function arrays(buffer) {
    const size = Number(new DataView(buffer).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
    const found = {};
    for (const [name, {dtype, shape, data_offsets: [from, to]}] of Object.entries(header)) {
        if (name !== '__metadata__') {
            found[name] = {data: new TYPES[dtype](buffer.slice(8 + size + from, 8 + size + to)), dims: shape};
        }
    }
    return found;
}

// A function from encoded inputs to outputs; `ort` is the module of onnxruntime-web, `get(file)` gives an ArrayBuffer.
export async function load(ort, get) {
    const described = JSON.parse(new TextDecoder().decode(await get('program.json')));
    const program = described.programs[described.main];
    ort.env.wasm.numThreads = 1; // more need the headers COOP and COEP
    const session = await ort.InferenceSession.create(new Uint8Array(await get(program.file)));
    return async (inputs) => {
        const feeds = {};
        for (const [name, {dtype, shape}] of Object.entries(program.inputs)) {
            const dims = shape.map((size) => (size === 'batch' ? inputs[name].rows : size));
            feeds[name] = new ort.Tensor(dtype, TYPES[dtype].from(inputs[name].data), dims);
        }
        const results = await session.run(feeds);
        return Object.fromEntries(Object.keys(program.outputs).map((name, at) => [name, results[session.outputNames[at]]]));
    };
}

// The largest error of the test vectors, and the milliseconds of a call.
export async function check(ort, get) {
    const vectors = arrays(await get('vectors.safetensors')), run = await load(ort, get), inputs = {};
    for (const [name, {data, dims}] of Object.entries(vectors)) {
        if (name.startsWith('inputs/')) inputs[name.slice(7)] = {data, rows: dims[0]};
    }
    await run(inputs);
    const started = performance.now(), outputs = await run(inputs), milliseconds = performance.now() - started;
    const error = Math.max(...Object.entries(outputs).flatMap(([name, {data}]) =>
        Array.from(data, (value, at) => Math.abs(Number(value) - vectors[`outputs/${name}`].data[at]))));
    return {error, milliseconds};
}
