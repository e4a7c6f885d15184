"""Signs a body as the senders' own libraries do, and prints one header a line: `name: value`.

    sign.py stripe SECRET TIME BODY
    sign.py standardwebhooks SECRET TIME BODY ID
"""

import sys
from datetime import datetime, timezone

scheme, secret, time, body, *rest = sys.argv[1:]
if scheme == "stripe":
    from stripe import WebhookSignature

    print("stripe-signature:", WebhookSignature.generate_signature_header(body, secret, int(time)))
else:
    from standardwebhooks import Webhook

    message_id = rest[0]
    signed_at = datetime.fromtimestamp(int(time), tz=timezone.utc)
    print("webhook-id:", message_id)
    print("webhook-timestamp:", time)
    print("webhook-signature:", Webhook(secret).sign(message_id, signed_at, body))
