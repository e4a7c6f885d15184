#!/usr/bin/env python3
"""An SQS on loopback with the FIFO semantics that AWS documents and that LocalStack's tests saw on AWS. Stdlib only.

  fake.py PORT                prints the port (0: a free one). Key id "test", secret "test"; POST /_faults {"action": "DeleteMessage", "times": 1,
                              "how": "drop_answer" | "error" | "hang", "code": "RequestThrottled", "status": 400}

The rule that no other emulator has: of a group a receive hands over the messages from the front up to the first that is
in flight. What is in flight holds back what is BEHIND it, not what is before it.
"""
import base64, collections, hashlib, hmac, json, os, re, sys, threading, time, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRETS = {"test": "test"}
ACCOUNT = "000000000000"
STRICT = bool(os.environ.get('SQS_FAKE_STRICT'))   # the other reading of the group lock, to test under both
DEDUP_S, HALF_DAY_S, LOOK_MAX, IN_FLIGHT_MAX = 300, 43200, 120_000, 120_000
LOCK = threading.Condition(threading.RLock())
QUEUES, FAULTS, SEQUENCE = {}, [], [18_849_496_460_467_696_128]
NAME = re.compile(r"^[0-9a-zA-Z!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}$")
BODY = re.compile("^[\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+$")

class Fault(Exception):
    def __init__(self, code, text, query=None): self.code, self.text, self.query = code, text, query or code

def invalid(text): return Fault("InvalidParameterValueException", text, "InvalidParameterValue")
def expired(handle): return invalid(f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.")

class Message:
    def __init__(self, body, group, dedup, attributes):
        self.id, self.body, self.group, self.dedup, self.attributes = str(uuid.uuid4()), body, group, dedup, attributes
        SEQUENCE[0] += 256
        self.sequence, self.sent, self.visible_at = str(SEQUENCE[0]), time.time(), 0.0
        self.received, self.first, self.last, self.handle, self.deleted, self.changes = 0, None, 0.0, None, False, 0
    def in_flight(self, now): return self.received > 0 and self.visible_at > now

class Queue:
    def __init__(self, name, region, attributes):
        self.name, self.url_path = name, f"/{ACCOUNT}/{name}"
        self.arn = f"arn:aws:sqs:{region}:{ACCOUNT}:{name}"
        self.attributes = {"VisibilityTimeout": "30", "MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600",
            "DelaySeconds": "0", "ReceiveMessageWaitTimeSeconds": "0", "SqsManagedSseEnabled": "true",
            "ContentBasedDeduplication": "false", "DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue",
            "CreatedTimestamp": str(int(time.time())), "LastModifiedTimestamp": str(int(time.time())), "QueueArn": self.arn} | attributes
        self.messages, self.by_handle, self.dedup, self.attempts = [], {}, {}, {}

    def tidy(self, now):
        keep = float(self.attributes["MessageRetentionPeriod"])
        self.messages = [m for m in self.messages if not m.deleted and m.sent + keep > now]

    def send(self, p):
        body, group, attributes = p.get("MessageBody"), p.get("MessageGroupId"), p.get("MessageAttributes") or {}
        if not group: raise Fault("MissingParameter", "The request must contain the parameter MessageGroupId.")
        if not NAME.match(group): raise invalid(f"Value {group} for parameter MessageGroupId is invalid. Reason: MessageGroupId can only include alphanumeric and punctuation characters. 1 to 128 in length.")
        dedup = p.get("MessageDeduplicationId")
        if dedup is not None and not NAME.match(dedup): raise invalid("MessageDeduplicationId can only include alphanumeric and punctuation characters. 1 to 128 in length.")
        if dedup is None and self.attributes["ContentBasedDeduplication"] == "true": dedup = hashlib.sha256(body.encode()).hexdigest()
        if dedup is None: raise invalid("The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly")
        if p.get("DelaySeconds"): raise invalid(f"Value {p['DelaySeconds']} for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for this queue type.")
        if not body or not BODY.match(body): raise Fault("InvalidMessageContents", "Invalid characters were found.")
        if len(attributes) > 10: raise invalid(f"Number of message attributes [{len(attributes)}] exceeds the allowed maximum [10].")
        size = len(body.encode()) + sum(len(n) + len(a["DataType"]) + len(a.get("StringValue", "").encode()) + len(base64.b64decode(a.get("BinaryValue", ""))) for n, a in attributes.items())
        if size > int(self.attributes["MaximumMessageSize"]): raise invalid(f"One or more parameters are invalid. Reason: Message must be shorter than {self.attributes['MaximumMessageSize']} bytes.")
        now, scope = time.time(), (group if self.attributes["DeduplicationScope"] == "messageGroup" else None, dedup)
        known = self.dedup.get(scope)
        if known is None or known.sent + DEDUP_S <= now:
            known = self.dedup[scope] = Message(body, group, dedup, attributes)
            self.messages.append(known)
            LOCK.notify_all()
        return {"MessageId": known.id, "SequenceNumber": known.sequence, "MD5OfMessageBody": hashlib.md5(body.encode()).hexdigest()}

    def redrive(self, message):
        policy = json.loads(self.attributes.get("RedrivePolicy") or "{}")
        if not policy or message.received < int(policy["maxReceiveCount"]): return False
        target = next((q for q in QUEUES.values() if q.arn == policy["deadLetterTargetArn"]), None)
        if target is None: return False
        self.messages.remove(message)
        message.received, message.visible_at, message.handle, message.sent = 0, 0.0, None, time.time()
        target.messages.append(message)
        return True

    def collect(self, most, visibility):
        now = time.time(); self.tidy(now)
        if sum(m.in_flight(now) for m in self.messages) >= IN_FLIGHT_MAX: return []
        groups = collections.OrderedDict()
        locked = {m.group for m in self.messages if m.in_flight(now)} if STRICT else ()   # STRICT: any in flight locks the group
        for m in list(self.messages[:LOOK_MAX]):
            blocked = groups.setdefault(m.group, [False, []])
            if blocked[0] or m.group in locked: continue
            if m.in_flight(now): blocked[0] = True; continue       # what is behind it waits
            if self.redrive(m): continue
            blocked[1].append(m)
        taken = [m for _, ms in groups.values() for m in ms][:most]   # as many of one group as there are, then the next
        for m in taken:
            m.received += 1; m.first = m.first or now; m.last = now; m.visible_at = now + visibility; m.changes += 1
            m.handle = base64.b64encode(f"{uuid.uuid4()} {self.arn} {m.id}".encode()).decode()
            self.by_handle[m.handle] = m
        return taken

    def receive(self, p):
        most = p.get("MaxNumberOfMessages", 1)
        if not 1 <= most <= 10: raise invalid(f"Value {most} for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.")
        visibility = int(p["VisibilityTimeout"]) if p.get("VisibilityTimeout") is not None else int(self.attributes["VisibilityTimeout"])
        wait = int(p["WaitTimeSeconds"]) if p.get("WaitTimeSeconds") is not None else int(self.attributes["ReceiveMessageWaitTimeSeconds"])
        attempt, until, taken = p.get("ReceiveRequestAttemptId"), time.time() + wait, None
        if attempt and attempt in self.attempts:
            at, before = self.attempts[attempt]
            now = time.time()
            if at + DEDUP_S > now:
                if any(m.deleted or m.changes != changes or not m.in_flight(now) for m, changes in before):
                    raise invalid(f"Value {attempt} for parameter ReceiveRequestAttemptId is invalid. Reason: The receiveRequestAttemptId is not valid anymore since the receive call is not retryable.")
                taken = [m for m, _ in before]
                for m in taken: m.visible_at = now + visibility
        while not taken:
            taken = self.collect(most, visibility)
            left = until - time.time()
            if taken or left <= 0: break
            soon = [m.visible_at for m in self.messages if m.visible_at > time.time()]
            LOCK.wait(max(0.005, min([left] + [s - time.time() for s in soon])))
        if attempt: self.attempts[attempt] = (time.time(), [(m, m.changes) for m in taken])
        return {"Messages": [self.shown(m) for m in taken]} if taken else {}

    @staticmethod
    def shown(m):
        shown = {"MessageId": m.id, "ReceiptHandle": m.handle, "Body": m.body, "MD5OfBody": hashlib.md5(m.body.encode()).hexdigest(),
            "Attributes": {"ApproximateReceiveCount": str(m.received), "SentTimestamp": str(int(m.sent * 1000)), "SenderId": "AIDA",
                "ApproximateFirstReceiveTimestamp": str(int(m.first * 1000)), "MessageGroupId": m.group, "MessageDeduplicationId": m.dedup, "SequenceNumber": m.sequence}}
        return shown | ({"MessageAttributes": m.attributes} if m.attributes else {})

    def of_handle(self, handle):
        m = self.by_handle.get(handle)
        if m is None: raise Fault("ReceiptHandleIsInvalid", f'The input receipt handle "{handle}" is not a valid receipt handle.')
        return m

    def delete(self, p):
        m = self.of_handle(p["ReceiptHandle"])
        if m.deleted: return {}
        if m.handle != p["ReceiptHandle"] or not m.in_flight(time.time()): raise expired(p["ReceiptHandle"])
        m.deleted = True; m.changes += 1; self.messages.remove(m); LOCK.notify_all()
        return {}

    def change(self, p):
        seconds, now, m = int(p["VisibilityTimeout"]), time.time(), self.of_handle(p["ReceiptHandle"])
        if not 0 <= seconds <= HALF_DAY_S: raise invalid(f"Value {seconds} for parameter VisibilityTimeout is invalid. Reason: VisibilityTimeout must be an integer between 0 and {HALF_DAY_S}.")
        if m.deleted or m.handle != p["ReceiptHandle"] or not m.in_flight(now):
            raise invalid(f"Value {p['ReceiptHandle']} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for visibility timeout change.")
        if now + seconds - m.last > HALF_DAY_S: raise invalid(f"Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is beyond the limit [{HALF_DAY_S} seconds].")
        m.visible_at = now + seconds; m.changes += 1; LOCK.notify_all()
        return {}

def batch(p, one):
    entries, done = p["Entries"], {"Successful": [], "Failed": []}
    if not entries: raise Fault("EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(entries) > 10: raise Fault("TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10.")
    if len({e["Id"] for e in entries}) < len(entries): raise Fault("BatchEntryIdsNotDistinct", "Id repeated.")
    for e in entries:
        try: done["Successful"].append({"Id": e["Id"]} | one(e))
        except Fault as f: done["Failed"].append({"Id": e["Id"], "SenderFault": True, "Code": "ReceiptHandleIsInvalid" if "ReceiptHandle" in f.text else f.query, "Message": f.text})
    return {k: v for k, v in done.items() if v}

def act(action, p, region):
    if action == "CreateQueue":
        name, attributes = p["QueueName"], p.get("Attributes") or {}
        if (attributes.get("FifoQueue") == "true") != name.endswith(".fifo"): raise invalid("The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to 80 in length.")
        return {"QueueUrl": QUEUES.setdefault(name, Queue(name, region, attributes)).url_path}
    if action == "ListQueues": return {"QueueUrls": [q.url_path for q in QUEUES.values()]}
    q = QUEUES.get(p.get("QueueName") or p.get("QueueUrl", "").rstrip("/").rsplit("/", 1)[-1])
    if q is None: raise Fault("QueueDoesNotExist", "The specified queue does not exist.", "AWS.SimpleQueueService.NonExistentQueue")
    now = time.time()
    if action == "GetQueueUrl": return {"QueueUrl": q.url_path}
    if action == "GetQueueAttributes":
        flying = sum(m.in_flight(now) for m in q.messages)
        everything = q.attributes | {"ApproximateNumberOfMessages": str(len(q.messages) - flying), "ApproximateNumberOfMessagesNotVisible": str(flying), "ApproximateNumberOfMessagesDelayed": "0"}
        names = p.get("AttributeNames") or []
        return {"Attributes": everything if "All" in names else {n: everything[n] for n in names if n in everything}}
    if action == "SetQueueAttributes": q.attributes |= p["Attributes"]; return {}
    if action == "DeleteQueue": QUEUES.pop(q.name); return {}
    if action == "PurgeQueue": q.messages.clear(); return {}
    one = {"SendMessage": q.send, "ReceiveMessage": q.receive, "DeleteMessage": q.delete, "ChangeMessageVisibility": q.change}
    if action in one: return one[action](p)
    if action.endswith("Batch") and action[:-5] in one: return batch(p, one[action[:-5]])
    raise Fault("InvalidAction", f"{action} is not known here.")

def signed(handler, body):
    """AWS Signature Version 4, verified by itself: nothing of the client under test is used."""
    found = re.match(r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/sqs/aws4_request, ?SignedHeaders=([^,]+), ?Signature=([0-9a-f]{64})$", handler.headers.get("Authorization", ""))
    if not found: raise Fault("MissingAuthenticationToken", "Request is missing Authentication Token")
    key, day, region, names, signature = found.groups()
    headers = "".join(f"{n}:{' '.join(handler.headers.get(n, '').split())}\n" for n in names.split(";"))
    path, _, query = handler.path.partition("?")
    request = "\n".join([handler.command, path, query, headers, names, hashlib.sha256(body).hexdigest()])
    text = "\n".join(["AWS4-HMAC-SHA256", handler.headers.get("X-Amz-Date", ""), f"{day}/{region}/sqs/aws4_request", hashlib.sha256(request.encode()).hexdigest()])
    k = ("AWS4" + SECRETS.get(key, "\0")).encode()
    for part in (day, region, "sqs", "aws4_request"): k = hmac.new(k, part.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(k, text.encode(), hashlib.sha256).hexdigest(), signature):
        raise Fault("SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided.")
    return region

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass
    def answer(self, status, value, query=None):
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0"); self.send_header("Content-Length", str(len(text))); self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        if query: self.send_header("x-amzn-query-error", f"{query};Sender")
        self.end_headers(); self.wfile.write(text)
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/_faults":
            with LOCK: FAULTS.append(json.loads(body))
            return self.answer(200, {})
        action = self.headers.get("X-Amz-Target", "").partition(".")[2]
        with LOCK:
            fault = next((f for f in FAULTS if f["action"] == action and f["times"] > 0), None)
            if fault: fault["times"] -= 1
        if fault and fault["how"] == "error": return self.answer(fault.get("status", 400), {"__type": f"com.amazonaws.sqs#{fault['code']}", "message": "as asked"}, fault["code"])
        if fault and fault["how"] == "hang": time.sleep(fault.get("seconds", 30))
        try:
            region = signed(self, body)
            with LOCK: result = act(action, json.loads(body or b"{}"), region)
            if "QueueUrl" in result: result["QueueUrl"] = f"http://{self.headers['Host']}{result['QueueUrl']}"
        except Fault as f:
            return self.answer(403 if "Sign" in f.code or "Token" in f.code else 400, {"__type": f"com.amazonaws.sqs#{f.code}", "message": f.text}, f.query)
        if fault and fault["how"] == "drop_answer": self.close_connection = True; return self.connection.close()
        self.answer(200, result)

if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print(server.server_address[1], flush=True)
    server.daemon_threads = True
    server.serve_forever()
