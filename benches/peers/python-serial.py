"""Forwards with aio-pika and aiohttp, one update in flight per partition: in queue order, so in order per record."""

import asyncio
import os
import signal

import aio_pika
import aiohttp

RETRY_SECONDS = 0.5


async def forward(session, url, delivery):
    headers = {"Idempotency-Key": f'"{delivery.message_id}"', "Content-Type": "application/json"}
    while True:
        async with session.put(url, data=delivery.body, headers=headers) as answer:
            await answer.read()
            if answer.status < 300:
                return
        await asyncio.sleep(RETRY_SECONDS)


async def partition(connection, session, name):
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=int(os.environ["BENCH_PREFETCH"]))
    queue = await channel.get_queue(name)
    async with queue.iterator() as deliveries:
        async for delivery in deliveries:
            await forward(session, os.environ["BENCH_TARGET"] + delivery.routing_key, delivery)
            await delivery.ack()


async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    connection = await aio_pika.connect(os.environ["BENCH_BROKER_URL"])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*(partition(connection, session, name) for name in os.environ["BENCH_QUEUES"].split()))


asyncio.run(main())
