// What llama.cpp makes of a model: `node llama_cpp.mjs PACKAGE JOB ANSWER`.
// PACKAGE is a folder with node-llama-cpp among its node_modules; JOB a JSON
// file {path, cases: [{text, ids}], tokens}; ANSWER gets [{ids, new}]: the ids
// into which llama.cpp cuts the text, and those that it writes greedily.
import fs from "node:fs";
import {createRequire} from "node:module";
import path from "node:path";
import {pathToFileURL} from "node:url";

const [where, jobFile, answerFile] = process.argv.slice(2);
const found = createRequire(path.resolve(where, "x.js")).resolve(
    "node-llama-cpp");
const {getLlama} = await import(pathToFileURL(found));
const job = JSON.parse(fs.readFileSync(jobFile));
const llama = await getLlama({gpu: false, build: "never", logLevel: "error"});
const model = await llama.loadModel({modelPath: job.path});
const context = await model.createContext({contextSize: 96, threads: 1});
const answers = [];
for (const {text, ids} of job.cases) {
    const sequence = context.getSequence(), written = [];
    const tokens = sequence.evaluate(
        ids, {temperature: 0, yieldEogToken: true});
    for await (const token of tokens)
        if (written.push(Number(token)) === job.tokens) break;
    sequence.dispose();
    answers.push({ids: model.tokenize(text, true).map(Number), new: written});
}
fs.writeFileSync(answerFile, JSON.stringify(answers));
process.exit(0);
