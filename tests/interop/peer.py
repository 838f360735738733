"""The official Python client, at the command of a test: a line of JSON in, a line of JSON out.

A request is {"op": .., ..arguments}; the answer is {"ok": ..} or {"error": ..}. Bytes travel as base64. Answers have the
same form as those of `peer.cjs`, so that one test serves for both. A further case is a further function in OPERATIONS.
"""

import asyncio
import base64
import json
import sys

import nats
import streams
from nats import errors as errors_nats
from nats import micro
from nats.micro import service as kinds_of_micro
from nats.js import api, errors


def encode(data):
    return base64.b64encode(data or b"").decode()


def decode(text):
    return base64.b64decode(text)


class Peer:
    def __init__(self, connection):
        self.nats = connection
        self.js = connection.jetstream(timeout=10)

    async def request(self, subject, data="", headers=None):
        reply = await self.nats.request(subject, decode(data), timeout=10, headers=headers)
        return {"data": encode(reply.data), "headers": dict(reply.headers or {})}

    # Key-value buckets.

    async def kv_make(self, bucket, history=1, marker_ttl=None):
        config = api.KeyValueConfig(bucket=bucket, history=history, limit_marker_ttl=marker_ttl)
        await self.js.create_key_value(config)

    async def kv_get(self, bucket, key):
        try:
            entry = await (await self.js.key_value(bucket)).get(key)
        except errors.KeyNotFoundError:
            return None
        return {"value": encode(entry.value), "revision": entry.revision}

    async def kv_put(self, bucket, key, value):
        return await (await self.js.key_value(bucket)).put(key, decode(value))

    async def kv_create(self, bucket, key, value, ttl=None):
        return await (await self.js.key_value(bucket)).create(key, decode(value), msg_ttl=ttl)

    async def kv_update(self, bucket, key, value, revision):
        return await (await self.js.key_value(bucket)).update(key, decode(value), last=revision)

    async def kv_delete(self, bucket, key):
        await (await self.js.key_value(bucket)).delete(key)

    async def kv_purge(self, bucket, key, ttl=None):
        await (await self.js.key_value(bucket)).purge(key, msg_ttl=ttl)

    async def kv_history(self, bucket, key):
        try:
            entries = await (await self.js.key_value(bucket)).history(key)
        except errors.NoKeysError:
            return []
        return [
            {"value": encode(entry.value), "revision": entry.revision, "operation": entry.operation or "PUT"}
            for entry in entries
        ]

    async def kv_ttl(self, bucket, key):
        # The entry does not say it; the message under it does.
        message = await self.js.get_last_msg(f"KV_{bucket}", f"$KV.{bucket}.{key}")
        return (message.headers or {}).get("Nats-TTL")

    async def kv_keys(self, bucket):
        try:
            return await (await self.js.key_value(bucket)).keys()
        except errors.NoKeysError:
            return []

    # Object stores.

    @staticmethod
    def info(info):
        link = info.options.link if info.options else None
        return {
            "name": info.name,
            "bucket": info.bucket,
            "size": info.size or 0,
            "chunks": info.chunks or 0,
            "digest": info.digest or "",
            "deleted": bool(info.deleted),
            "description": info.description or "",
            "headers": info.headers or {},
            "link": link and {"bucket": link.bucket, "name": link.name},
        }

    async def obj_make(self, bucket):
        await self.js.create_object_store(bucket)

    async def obj_put(self, bucket, name, data, description=None, headers=None):
        meta = api.ObjectMeta(description=description, headers=headers)
        store = await self.js.object_store(bucket)
        return self.info(await store.put(name, decode(data), meta))

    async def obj_get(self, bucket, name):
        try:
            got = await (await self.js.object_store(bucket)).get(name)
        except errors.ObjectNotFoundError:
            return None
        return {"data": encode(got.data), "info": self.info(got.info)}

    async def obj_info(self, bucket, name):
        try:
            return self.info(await (await self.js.object_store(bucket)).get_info(name))
        except errors.ObjectNotFoundError:
            return None

    async def obj_list(self, bucket):
        try:
            infos = await (await self.js.object_store(bucket)).list(ignore_deletes=True)
        except errors.NotFoundError:
            return []
        return [self.info(info) for info in infos]

    async def obj_describe(self, bucket, name, description):
        store = await self.js.object_store(bucket)
        now = await store.get_info(name)
        meta = api.ObjectMeta(name=name, description=description, headers=now.headers)
        await store.update_meta(name, meta)

    async def obj_delete(self, bucket, name):
        await (await self.js.object_store(bucket)).delete(name)

    async def obj_seal(self, bucket):
        await (await self.js.object_store(bucket)).seal()

    # Services.

    async def service_find(self, verb, name=None):
        # This client serves, and has no call to find others: it is the reading of the replies that is tried here.
        kinds = {
            "ping": kinds_of_micro.ServicePing,
            "info": kinds_of_micro.ServiceInfo,
            "stats": kinds_of_micro.ServiceStats,
        }
        subject = f"$SRV.{verb.upper()}" + (f".{name}" if name else "")
        inbox = self.nats.new_inbox()
        replies = await self.nats.subscribe(inbox)
        await self.nats.publish(subject, reply=inbox)
        found = []
        try:
            while True:
                reply = await replies.next_msg(timeout=2 if not found else 0.3)
                found.append(kinds[verb].from_dict(json.loads(reply.data)).to_dict())
        except errors_nats.TimeoutError:
            pass
        await replies.unsubscribe()
        return found

    async def service_serve(self, name, version, description=None, metadata=None, queue=None):
        service = await micro.add_service(
            self.nats, name=name, version=version, description=description, metadata=metadata, queue_group=queue
        )

        async def double(request):
            if request.data == b"boom":
                raise RuntimeError("it fails")
            try:
                number = int(request.data)
            except ValueError:
                await request.respond_error("400", "no number")
                return
            await request.respond(str(2 * number).encode())

        group = service.add_group(name=name)
        await group.add_endpoint(name="double", handler=double, metadata={"cost": "low"})
        await self.nats.flush()
        return service.id

    # Streams.

    async def stream_read(self, subject, data, window=streams.WINDOW, beat=2000, lose=(), most=None, rest=0):
        """Reads a stream: all of it, or until `most` items; and first does not read until it has heard `rest` signs of life."""
        caller = streams.Caller(self.nats, window, beat, lose)
        refused = await caller.open(subject, decode(data))
        if refused:
            return {"refused": refused}
        items, unread, ended = [], 0, None
        while ended is None and caller.signs < rest:
            ended = await caller.hear()
            unread = len(caller.waiting)
        while ended is None and (most is None or len(items) < most):
            ended = await caller.hear()
            items += await caller.take()
        if ended is None:
            await caller.cancel()
        return {
            "items": [encode(item) for item in items],
            "ended": ended and ended[0],
            "error": ended and ended[1],
            "unread": unread,
            "repeated": caller.repeated,
            "opened": caller.opened,
        }

    async def stream_serve(self, subject, lose=()):
        """Counts: `{"to": .., "act": ..}` as the tests' own service does."""

        def count(ask):
            for number in range(1, ask["to"] + 1):
                item = {"number": number, "text": "x" * ask.get("bytes", 0)}
                yield ("items", json.dumps(item).encode(), {})
            if ask.get("act") == "Fail":
                text = f"dry after {ask['to']}"
                body = {"code": "OutOfRange", "message": text, "variant": "Dry", "details": {"number": ask["to"]}}
                yield ("error", json.dumps(body).encode(), {streams.ERROR: text, streams.CODE: "416"})

        self.service = streams.Service(self.nats, subject, count, lose)
        await self.service.start()

    async def stream_served(self):
        names = ["running", "produced", "cancelled", "resent"]
        return {name: getattr(self.service, name) for name in names}


OPERATIONS = {name: operation for name, operation in vars(Peer).items() if asyncio.iscoroutinefunction(operation)}


async def main():
    async def failed(_):
        pass

    peer = Peer(await nats.connect(sys.argv[1], error_cb=failed))
    print(json.dumps({"ok": "ready"}), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        operation = OPERATIONS[request.pop("op")]
        try:
            answer = {"ok": await operation(peer, **request)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


asyncio.run(main())
