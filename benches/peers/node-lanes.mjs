// Forwards with amqplib and undici: a lane per record within each partition, so that records go side by side.

import { createRequire } from "node:module";

// Not an import: those do not look at NODE_PATH.
const require = createRequire(import.meta.url);
const amqplib = require("amqplib");
const { Agent, request } = require("undici");

const { BENCH_BROKER_URL, BENCH_QUEUES, BENCH_TARGET, BENCH_PREFETCH, BENCH_IN_FLIGHT_MAX } = process.env;
const RETRY_MS = 500;

const dispatcher = new Agent({ connections: 1024 });

async function forward(delivery) {
  for (;;) {
    const answer = await request(BENCH_TARGET + delivery.fields.routingKey, {
      method: "PUT",
      dispatcher,
      headers: {
        "idempotency-key": `"${delivery.properties.messageId}"`,
        "content-type": "application/json",
      },
      body: delivery.content,
    });
    await answer.body.dump();
    if (answer.statusCode < 300) return;
    await new Promise((done) => setTimeout(done, RETRY_MS));
  }
}

async function partition(connection, queue) {
  const channel = await connection.createChannel();
  await channel.prefetch(Number(BENCH_PREFETCH));
  const lanes = new Map(); // record key → deliveries, the first of which is in flight or its key ready
  const ready = [];
  let inFlight = 0;

  const next = () => {
    while (inFlight < Number(BENCH_IN_FLIGHT_MAX) && ready.length > 0) {
      inFlight += 1;
      run(ready.shift());
    }
  };
  const run = async (key) => {
    const lane = lanes.get(key);
    await forward(lane[0]);
    channel.ack(lane.shift());
    if (lane.length > 0) ready.push(key);
    else lanes.delete(key);
    inFlight -= 1;
    next();
  };
  await channel.consume(queue, (delivery) => {
    const key = delivery.fields.routingKey;
    const lane = lanes.get(key);
    if (lane) {
      lane.push(delivery);
      return;
    }
    lanes.set(key, [delivery]);
    ready.push(key);
    next();
  });
}

process.on("SIGTERM", () => process.exit(0));
const connection = await amqplib.connect(BENCH_BROKER_URL);
await Promise.all(BENCH_QUEUES.split(" ").map((queue) => partition(connection, queue)));
