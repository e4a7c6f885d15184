#!/usr/bin/env node
// Publishes updates of three records to Lanekeeper, each record in order. Needs amqplib (npm install amqplib).
//
// Usage: node publisher.js [URL]     else LANEKEEPER_BROKER__URL, else the local default
'use strict';

const amqp = require('amqplib');

const URL_DEFAULT = 'amqp://guest:guest@127.0.0.1:5672/%2f';
const EXCHANGE = process.env.LANEKEEPER_UPDATES__EXCHANGE || 'updates';
const TRIES_MAX = 10;
const WAIT_MS = 1000;

let confirmed = 0;

// Resolves once the broker has answered: null if it has the update, else why not. `returned` holds the ids of
// updates that came back because no queue takes them; the return always comes before the confirm.
function publishOnce(channel, returned, recordKey, body, properties) {
  return new Promise((resolve) => {
    channel.publish(EXCHANGE, recordKey, body, properties, (refusal) => {
      if (returned.delete(properties.messageId)) resolve('no queue is bound');
      else resolve(refusal ? 'refused' : null);
    });
  });
}

// Resolves once the broker has confirmed the update; rejects if it keeps refusing it.
async function publish(channel, returned, recordKey, sequence) {
  const body = Buffer.from(JSON.stringify({ sequence, name: `Customer ${recordKey}` }));
  const properties = {
    // From your own data: the same id whenever this update is published again.
    messageId: `node-${recordKey}-${sequence}`,
    type: 'customer.updated',
    contentType: 'application/json',
    persistent: true, // delivery_mode 2: survives a restart of the broker
    mandatory: true, // comes back if no queue takes it, instead of being confirmed and lost
    timestamp: Math.floor(Date.now() / 1000),
    headers: { 'record-version': sequence + 1 },
  };
  for (let tries = 1; ; tries++) {
    const refusal = await publishOnce(channel, returned, recordKey, body, properties);
    if (!refusal) break;
    if (tries === TRIES_MAX) throw new Error(`${recordKey} ${sequence}: ${refusal}`);
    console.error(`${recordKey} ${sequence}: ${refusal}, trying again`);
    await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
  }
  confirmed++;
}

// One record: the next update goes out only when the one before it is confirmed.
async function publishRecord(channel, returned, recordKey) {
  for (let sequence = 0; sequence < 20; sequence++) {
    await publish(channel, returned, recordKey, sequence);
  }
}

async function main() {
  const url = process.argv[2] || process.env.LANEKEEPER_BROKER__URL || URL_DEFAULT;
  const connection = await amqp.connect(url, {
    clientProperties: { connection_name: 'example publisher (Node.js)' },
  });
  const channel = await connection.createConfirmChannel();
  const returned = new Set();
  channel.on('return', (message) => returned.add(message.properties.messageId));
  const lost = new Promise((_, reject) => {
    for (const source of [connection, channel]) {
      source.on('error', reject);
      source.on('close', () => reject(new Error('the connection is lost')));
    }
  });
  const records = ['customer-0', 'customer-1', 'customer-2'];
  // Different records at the same time.
  const all = Promise.all(records.map((recordKey) => publishRecord(channel, returned, recordKey)));
  await Promise.race([all, lost]);
  lost.catch(() => {}); // closing is no fault from here on
  await connection.close();
}

main().then(
  () => console.log(`confirmed ${confirmed} of 60`),
  (fault) => {
    // What is not confirmed may have arrived or not. Publish it again, with the same ids, before anything newer of
    // its record: running this program again does just that.
    console.error(`confirmed ${confirmed} of 60, then: ${fault.message}`);
    process.exit(1);
  },
);
