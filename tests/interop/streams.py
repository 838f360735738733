"""Streams as `docs/guide/streaming.md` describes them, and nothing else of the framework: a caller that reads a streaming answer,
and a service that gives one. `Lossy` is how a test lets a frame be lost.
"""

import asyncio
import json
import secrets
import struct
import time

HEADER = "Nats-Service-Stream"
ERROR, CODE = "Nats-Service-Error", "Nats-Service-Error-Code"
WINDOW = (1024, 256 << 10)


def parse(headers):
    """The word and the pairs of a message; None where it is no message of a stream."""
    words = (headers or {}).get(HEADER, "").split()
    try:
        return (words[0], {name: int(value) for name, value in (word.split("=") for word in words[1:])})
    except (IndexError, ValueError):
        return None


def form(word, **pairs):
    return {HEADER: " ".join([word] + [f"{name}={value}" for name, value in pairs.items()])}


def split(pairs, body):
    """The items of an `items` message, each with what it counts for in bytes."""
    if "count" not in pairs:
        return [(body, len(body))]
    items = []
    for _ in range(pairs["count"]):
        (length,) = struct.unpack_from(">I", body)
        items.append((body[4 : 4 + length], 4 + length))
        body = body[4 + length :]
    return items


def read_error(message):
    headers = message.headers or {}
    if ERROR not in headers and CODE not in headers:
        return None
    return {"code": headers.get(CODE), "text": headers.get(ERROR), "body": json.loads(message.data or b"null")}


class Caller:
    """Reads the stream of a method that streams its answer."""

    def __init__(self, nats, window=WINDOW, beat=2000, lose=()):
        self.nats, self.window, self.beat = nats, window, beat / 1000
        self.own = nats.new_inbox()
        self.lose = set(lose)
        self.last, self.taken = 0, [0, 0]
        self.told, self.allowed = time.monotonic(), list(window)
        self.heard, self.missing, self.asked = time.monotonic(), False, 0.0
        self.sent_by_peer = 0
        self.waiting = []
        self.signs = self.repeated = 0

    async def open(self, subject, body, timeout=10):
        self.inbox = await self.nats.subscribe(self.own)
        items, bytes_ = self.window
        headers = form("open", items=items, bytes=bytes_, beat=int(self.beat * 1000))
        await self.nats.publish(subject, body, reply=self.own, headers=headers)
        first = await self.inbox.next_msg(timeout=timeout)
        self.opened = dict(first.headers or {})
        if error := read_error(first):
            return error
        word, pairs = parse(first.headers)
        assert word == "open" and first.reply.startswith("_"), first
        self.peer, self.mark = first.reply, pairs["from"]
        return None

    async def say(self, resend=False):
        self.allowed = [max(a, t + w) for a, t, w in zip(self.allowed, self.taken, self.window)]
        items, bytes_ = self.allowed
        pairs = {"ack": self.last, "items": items, "bytes": bytes_, "sent": 0}
        if resend:
            pairs["resend"], self.asked = 1, time.monotonic()
        self.told = time.monotonic()
        await self.nats.publish(self.peer, b"", reply=self.own, headers=form("state", **pairs))

    async def cancel(self):
        await self.nats.publish(self.peer, b"", headers=form("cancel"))
        await self.inbox.unsubscribe()
        await self.nats.flush()

    async def hear(self):
        """One message, or a beat: None while the stream goes on, and then (how it ended, with what)."""
        now = time.monotonic()
        if now - self.told >= self.beat:
            await self.say()
        if self.missing and now - self.asked >= self.beat / 4:
            await self.say(resend=True)
        if now - self.heard >= 5 * self.beat:
            await self.cancel()
            return ("silent", None)
        try:
            message = await self.inbox.next_msg(timeout=self.beat / 4)
        except asyncio.TimeoutError:
            return None
        parsed = parse(message.headers)
        if parsed is None:
            error = read_error(message)
            return error and ("error", error)
        word, pairs = parsed
        if pairs.get("from") != self.mark and not (word == "cancel" and "from" not in pairs):
            if word == "open":
                await self.nats.publish(message.reply, b"", headers=form("cancel"))
            return None
        self.heard = time.monotonic()
        if word == "cancel":
            return ("cancel", None)
        if word == "state":
            self.signs += 1
            self.missing = pairs["sent"] > self.last
            return None
        if word not in ("items", "end", "error"):
            return None
        seq = pairs["seq"]
        if seq in self.lose:
            # A test has this one lost, once.
            self.lose.remove(seq)
            return None
        if seq <= self.last:
            self.repeated += 1
            return None
        if seq > self.last + 1:
            self.missing = True
            return None
        self.last, self.missing = seq, False
        if word == "items":
            self.waiting += split(pairs, message.data)
            assert self.taken[0] + len(self.waiting) <= self.allowed[0], "more items than were allowed"
            return None
        await self.say()
        await self.inbox.unsubscribe()
        return (word, read_error(message))

    async def take(self):
        """What waits is read; more may come."""
        items, self.waiting = self.waiting, []
        for _, cost in items:
            self.taken = [self.taken[0] + 1, self.taken[1] + cost]
        left = [a - t for a, t in zip(self.allowed, self.taken)]
        if any(2 * l <= w for l, w in zip(left, self.window)):
            await self.say()
        return [item for item, _ in items]


class Service:
    """Answers requests of one subject with streams."""

    def __init__(self, nats, subject, source, lose=()):
        self.nats, self.subject, self.source = nats, subject, source
        self.lose = set(lose)
        self.running = self.produced = self.cancelled = self.resent = 0
        self.tasks = set()

    async def start(self):
        await self.nats.subscribe(self.subject, queue="q", cb=self.request)
        await self.nats.flush()

    async def request(self, message):
        parsed = parse(message.headers)
        if not (message.reply or "").startswith("_INBOX."):
            return
        if parsed is None or parsed[0] != "open":
            await self.refuse(message.reply, 400, {"code": "InvalidArgument", "message": "this method streams"})
            return
        task = asyncio.create_task(self.serve(message.reply, parsed[1], json.loads(message.data)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def refuse(self, to, number, body, **more):
        headers = {ERROR: body["message"], CODE: str(number), **more}
        await self.nats.publish(to, json.dumps(body).encode(), headers=headers)

    async def serve(self, peer, asked, request):
        self.running += 1
        try:
            await self.stream(peer, asked, request)
        finally:
            self.running -= 1

    async def stream(self, peer, asked, request):
        beat = min(max(asked.get("beat") or 2000, 50), 60_000) / 1000
        allowed = [asked.get("items", 0), asked.get("bytes", 0)]
        allowed = allowed if all(allowed) else list(WINDOW)
        own, mark = self.nats.new_inbox(), secrets.randbelow(2**63) + 1
        inbox = await self.nats.subscribe(own)
        items = self.source(request)
        sent, kept, seq, ended = [0, 0], [], 0, False

        async def put(word, body=b"", reply="", headers=None, **pairs):
            headers = {**(headers or {}), **form(word, **pairs, **{"from": mark})}
            await self.nats.publish(peer, body, reply=reply, headers=headers)

        async def state():
            # It takes nothing from its caller.
            await put("state", reply=own, ack=0, items=0, bytes=0, sent=seq)

        await put("open", reply=own, items=0, bytes=0)
        told = heard = time.monotonic()
        repeated = 0.0
        while not (ended and not kept):
            while not ended and sent[0] < allowed[0] and sent[1] < allowed[1]:
                produced, seq = next(items, ("end", b"", {})), seq + 1
                word, body, headers = produced
                ended = word != "items"
                if not ended:
                    sent = [sent[0] + 1, sent[1] + len(body)]
                    self.produced += 1
                kept.append((seq, word, body, headers))
                if seq in self.lose:
                    self.lose.remove(seq)
                    continue
                await put(word, body, headers=headers, seq=seq)
            now = time.monotonic()
            if now - told >= beat:
                told = now
                await state()
            if now - heard >= 5 * beat:
                await put("cancel")
                break
            try:
                message = await inbox.next_msg(timeout=beat / 4)
            except asyncio.TimeoutError:
                continue
            parsed = parse(message.headers)
            if parsed is None:
                continue
            heard = time.monotonic()
            word, pairs = parsed
            if word == "cancel":
                self.cancelled += 1
                break
            if word == "state":
                kept = [frame for frame in kept if frame[0] > pairs["ack"]]
                allowed = [max(allowed[0], pairs["items"]), max(allowed[1], pairs["bytes"])]
                if pairs.get("resend") and heard - repeated >= beat / 4:
                    repeated = heard
                    for number, word, body, headers in kept:
                        self.resent += 1
                        await put(word, body, headers=headers, seq=number)
        await inbox.unsubscribe()
