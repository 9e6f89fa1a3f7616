// node llama_greedy.mjs NODE_MODULES model.gguf prompts.json: replaces the prompts by [{tokens, generated}] of llama.cpp.
// The cache is in float32: with the default, float16, near ties end differently.
import {createRequire} from 'node:module';
import {readFileSync, writeFileSync} from 'node:fs';
import {pathToFileURL} from 'node:url';

const [modules, file, prompts] = process.argv.slice(2);
const resolve = createRequire(pathToFileURL(modules + '/')).resolve;
const {getLlama} = await import(pathToFileURL(resolve('node-llama-cpp')).href);
const llama = await getLlama({gpu: false, build: 'never', logLevel: 'error', maxThreads: 1});
const model = await llama.loadModel({modelPath: file});
const {texts, count, length} = JSON.parse(readFileSync(prompts, 'utf8'));
const context = await model.createContext({
    contextSize: length, experimentalKvCacheKeyType: 'F32', experimentalKvCacheValueType: 'F32', flashAttention: false,
});
const sequence = context.getSequence();
const results = [];
for (const text of texts) {
    const tokens = Array.from(model.tokenize(text, false));
    const generated = [];
    if (count && tokens.length) {
        await sequence.clearHistory();
        for await (const token of sequence.evaluate(tokens, {temperature: 0, yieldEogToken: true})) {
            generated.push(token);
            if (generated.length >= count) break;
        }
    }
    results.push({tokens, generated});
}
writeFileSync(prompts, JSON.stringify(results));
process.exit(0);
