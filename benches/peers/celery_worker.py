"""Forwards with Celery: one prefork worker with one process per queue.

Celery's tasks have a message format of their own. What is in these queues has not, so that a consumer step takes the
updates and hands each to the worker's pool, which has one process: one update in flight per queue.
"""

import os
import signal
import subprocess
import sys
import time

import requests
from celery import Celery, bootsteps
from kombu import Consumer, Queue

RETRY_SECONDS = 0.5

app = Celery("peer", broker=os.environ["BENCH_BROKER_URL"])
app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
session = requests.Session()  # one per pool process, after the fork


def forward(key, update_id, body):
    headers = {"Idempotency-Key": f'"{update_id}"', "Content-Type": "application/json"}
    while session.put(os.environ["BENCH_TARGET"] + key, data=body, headers=headers).status_code >= 300:
        time.sleep(RETRY_SECONDS)


class Forward(bootsteps.StartStopStep):
    """Consumes the worker's queue beside Celery's own."""

    requires = ("celery.worker.consumer:Tasks",)

    def start(self, consumer):
        self.pool = consumer.pool
        channel = consumer.connection.default_channel.connection.channel()
        channel.basic_qos(0, int(os.environ["BENCH_PREFETCH"]), False)
        queue = Queue(os.environ["PEER_QUEUE"], no_declare=True)
        self.consumer = Consumer(channel, [queue], on_message=self.received, accept=None, auto_declare=False)
        # Not before the loop runs: until then the pool takes nothing.
        consumer.hub.call_soon(self.consumer.consume)

    def received(self, message):
        arguments = (message.delivery_info["routing_key"], message.properties["message_id"], message.body)
        self.pool.apply_async(forward, arguments, callback=lambda _: message.ack())


app.steps["consumer"].add(Forward)


def worker(queue):
    command = [sys.executable, "-m", "celery", "-A", "celery_worker", "worker", "--pool=prefork", "--concurrency=1"]
    command += ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    command += ["--queues", queue + ".celery", "--hostname", queue + "@peer"]
    return subprocess.Popen(command, env={**os.environ, "PEER_QUEUE": queue})


if __name__ == "__main__":
    workers = [worker(queue) for queue in os.environ["BENCH_QUEUES"].split()]
    signal.signal(signal.SIGTERM, lambda *_: [process.kill() for process in workers] and os._exit(0))
    for process in workers:
        process.wait()
