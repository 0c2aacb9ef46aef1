#!/usr/bin/env node
// A sensor in JavaScript: sends pictures one after the other, and prints the answers.
//
//     npm install
//     node sensor.js mqtt://127.0.0.1:1883 mnist ../images/digit-7-3.png ../images/digit-3-1.png
//
// MQTT 5: the answer comes on a topic of this process, with the number of the picture as correlation data. A task
// that is refused is sent again, later and later. Exit code 1 if a picture got no answer with a result.
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import mqtt from 'mqtt';

const PREFIX = process.env.SPLITPLACE_PREFIX ?? 'splitplace/v1';
const DEADLINE_MS = 1000;
const PATIENCE_MS = DEADLINE_MS + 30_000; // the gateway may be away for a moment
const TRIES = 4;

const [url, application, ...files] = process.argv.slice(2);
if (!files.length) {
  console.error('usage: node sensor.js BROKER APPLICATION PICTURE...');
  process.exit(2);
}

const name = process.env.SENSOR ?? `js-${hostname()}`;
const start = Date.now(); // a task id that comes again with the same picture gets the stored answer
const answers = `sensors/${name}/${start}/answers`;
const waiting = new Map();

const client = await mqtt.connectAsync(url, { protocolVersion: 5 });
client.on('message', (_topic, payload, packet) => {
  const id = packet.properties?.correlationData?.toString();
  waiting.get(id)?.(JSON.parse(payload.toString()));
  waiting.delete(id);
});
await client.subscribeAsync(answers, { qos: 1 });

async function ask(picture, id) {
  const answered = new Promise((resolve) => {
    waiting.set(id, resolve);
    setTimeout(() => waiting.delete(id) && resolve(null), PATIENCE_MS).unref();
  });
  await client.publishAsync(`${PREFIX}/task/${application}/${name}/${id}`, picture, {
    qos: 1,
    properties: {
      responseTopic: answers,
      correlationData: Buffer.from(id),
      userProperties: { deadline_ms: String(DEADLINE_MS) },
    },
  });
  return answered;
}

let failures = 0;
for (const [number, file] of files.entries()) {
  const picture = await readFile(file);
  let answer = null;
  for (let attempt = 1; attempt <= TRIES; attempt += 1) {
    answer = await ask(picture, `${start}-${number}-${attempt}`);
    if (answer?.status !== 'refused') break; // anything else is final
    await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
  }
  const found = answer?.predictions?.[0];
  if (answer?.status === 'answered' && found) {
    console.log(`${file}: ${found.label} (${(100 * found.confidence).toFixed(0)} %), ${answer.response_ms} ms`);
  } else {
    failures += 1;
    console.log(`${file}: ${answer ? `${answer.status}: ${answer.reason}` : 'no answer'}`);
  }
}
await client.endAsync();
process.exitCode = failures ? 1 : 0;
