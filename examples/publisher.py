#!/usr/bin/env python3
"""Publishes updates of three records to Lanekeeper, each record in order. Needs pika (pip install pika).

Usage: publisher.py [URL]     else LANEKEEPER_BROKER__URL, else the local default
"""

import json
import os
import sys
import time

import pika
from pika.exceptions import AMQPError, NackError, UnroutableError

URL_DEFAULT = "amqp://guest:guest@127.0.0.1:5672/%2f"
EXCHANGE = os.environ.get("LANEKEEPER_UPDATES__EXCHANGE", "updates")
TRIES_MAX = 10
WAIT_SECONDS = 1


def publish(channel, record_key, sequence):
    """Returns once the broker has confirmed the update; raises if it keeps refusing it."""
    properties = pika.BasicProperties(
        # From your own data: the same id whenever this update is published again.
        message_id=f"python-{record_key}-{sequence}",
        type="customer.updated",
        content_type="application/json",
        delivery_mode=2,  # survives a restart of the broker
        timestamp=int(time.time()),
        headers={"record-version": sequence + 1},
    )
    body = json.dumps({"sequence": sequence, "name": f"Customer {record_key}"})
    for tries in range(1, TRIES_MAX + 1):
        try:
            # In confirm mode this waits for the broker's answer. `mandatory`: an update that no queue takes
            # comes back (UnroutableError) instead of being confirmed and lost.
            channel.basic_publish(EXCHANGE, record_key, body, properties, mandatory=True)
            return
        except (NackError, UnroutableError) as refusal:
            if tries == TRIES_MAX:
                raise
            why = "no queue is bound" if isinstance(refusal, UnroutableError) else "refused"
            print(f"{record_key} {sequence}: {why}, trying again", file=sys.stderr)
            channel.connection.sleep(WAIT_SECONDS)  # keeps the heartbeat going


def main():
    url = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("LANEKEEPER_BROKER__URL", URL_DEFAULT)
    parameters = pika.URLParameters(url)
    parameters.client_properties = {"connection_name": "example publisher (Python)"}
    confirmed = 0
    try:
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.confirm_delivery()
        for sequence in range(20):
            for record in range(3):
                # One at a time, so a record's next update follows only when this one is confirmed. To be
                # faster, publish different records from several connections; never one record from two.
                publish(channel, f"customer-{record}", sequence)
                confirmed += 1
        connection.close()
    except (AMQPError, OSError) as fault:
        # What is not confirmed may have arrived or not. Publish it again, with the same ids, before anything
        # newer of its record: running this program again does just that.
        print(f"confirmed {confirmed} of 60, then: {fault!r}", file=sys.stderr)
        return 1
    print(f"confirmed {confirmed} of 60")
    return 0


if __name__ == "__main__":
    sys.exit(main())
