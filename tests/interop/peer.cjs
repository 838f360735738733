// The official JavaScript client, at the command of a test: a line of JSON in, a line of JSON out.
//
// A request is {"op": .., ..arguments}; the answer is {"ok": ..} or {"error": ..}. Bytes travel as base64. Answers have the
// same form as those of `peer.py`, so that one test serves for both. A further case is a further entry of `operations`.
"use strict";

const readline = require("node:readline");
const { connect, headers } = require("@nats-io/transport-node");
const { jetstream } = require("@nats-io/jetstream");
const { Kvm } = require("@nats-io/kv");
const { Svcm } = require("@nats-io/services");
const { Objm } = require("@nats-io/obj");

const encode = (bytes) => Buffer.from(bytes ?? []).toString("base64");
const decode = (text) => new Uint8Array(Buffer.from(text, "base64"));

// This client writes an object's name with one byte a character, where every other one writes UTF-8, and refuses characters
// beyond U+00FF: with the bytes of UTF-8 as characters, both come out right.
const named = (name) => Buffer.from(name, "utf8").toString("latin1");

function headersOf(pairs) {
  const found = headers();
  for (const [name, value] of Object.entries(pairs ?? {})) found.append(name, value);
  return found;
}

function pairsOf(found) {
  const pairs = {};
  for (const name of found?.keys() ?? []) pairs[name] = found.get(name);
  return pairs;
}

function infoOf(info) {
  const link = info.options?.link;
  return {
    name: info.name,
    bucket: info.bucket,
    size: info.size ?? 0,
    chunks: info.chunks ?? 0,
    digest: info.digest ?? "",
    deleted: info.deleted ?? false,
    description: info.description ?? "",
    headers: info.headers?.toRecord?.() ?? info.headers ?? {},
    link: link ? { bucket: link.bucket, name: link.name ?? null } : null,
  };
}

async function main() {
  const nats = await connect({ servers: process.argv[2], timeout: 10_000 });
  const js = jetstream(nats, { timeout: 10_000 });
  const jsm = await js.jetstreamManager();
  const bucket = (name) => new Kvm(js).open(name);
  const store = (name) => new Objm(js).open(name);

  const operations = {
    async request({ subject, data, headers }) {
      const reply = await nats.request(subject, decode(data ?? ""), { timeout: 10_000, headers: headersOf(headers) });
      return { data: encode(reply.data), headers: pairsOf(reply.headers) };
    },

    // Key-value buckets.

    async kv_make({ bucket, history, marker_ttl }) {
      const options = { history: history ?? 1 };
      if (marker_ttl) options.markerTTL = marker_ttl * 1000;
      await new Kvm(js).create(bucket, options);
    },
    async kv_get(request) {
      const entry = await (await bucket(request.bucket)).get(request.key);
      if (!entry || entry.operation !== "PUT") return null;
      return { value: encode(entry.value), revision: entry.revision };
    },
    async kv_put(request) {
      return (await bucket(request.bucket)).put(request.key, decode(request.value));
    },
    async kv_create(request) {
      const ttl = request.ttl ? `${request.ttl}s` : undefined;
      return (await bucket(request.bucket)).create(request.key, decode(request.value), ttl);
    },
    async kv_update(request) {
      return (await bucket(request.bucket)).update(request.key, decode(request.value), request.revision);
    },
    async kv_delete(request) {
      await (await bucket(request.bucket)).delete(request.key);
    },
    async kv_purge(request) {
      const options = request.ttl ? { ttl: `${request.ttl}s` } : undefined;
      await (await bucket(request.bucket)).purge(request.key, options);
    },
    async kv_history(request) {
      const entries = [];
      for await (const entry of await (await bucket(request.bucket)).history({ key: request.key })) {
        entries.push({ value: encode(entry.value), revision: entry.revision, operation: entry.operation });
      }
      return entries;
    },
    async kv_ttl({ bucket, key }) {
      // The entry does not say it; the message under it does.
      const message = await jsm.streams.getMessage(`KV_${bucket}`, { last_by_subj: `$KV.${bucket}.${key}` });
      return message?.header?.get("Nats-TTL") || null;
    },
    async kv_keys(request) {
      const keys = [];
      for await (const key of await (await bucket(request.bucket)).keys()) keys.push(key);
      return keys;
    },

    // Object stores.

    async obj_make(request) {
      await new Objm(js).create(request.bucket);
    },
    async obj_put(request) {
      const meta = { name: named(request.name), description: request.description };
      if (request.headers) meta.headers = headersOf(request.headers);
      return infoOf(await (await store(request.bucket)).putBlob(meta, decode(request.data)));
    },
    async obj_get(request) {
      const got = await (await store(request.bucket)).get(named(request.name));
      if (!got) return null;
      const parts = [];
      for await (const part of got.data) parts.push(part);
      const failed = await got.error;
      if (failed) throw failed;
      return { data: encode(Buffer.concat(parts)), info: infoOf(got.info) };
    },
    async obj_info(request) {
      const info = await (await store(request.bucket)).info(named(request.name));
      return info && !info.deleted ? infoOf(info) : null;
    },
    async obj_list(request) {
      return (await (await store(request.bucket)).list()).map(infoOf);
    },
    async obj_describe(request) {
      await (await store(request.bucket)).update(named(request.name), { description: request.description });
    },
    async obj_delete(request) {
      await (await store(request.bucket)).delete(named(request.name));
    },
    async obj_seal(request) {
      await (await store(request.bucket)).seal();
    },
    async obj_link(request) {
      const target = await (await store(request.target_bucket)).info(named(request.target));
      return infoOf(await (await store(request.bucket)).link(named(request.name), target));
    },
    async obj_link_store(request) {
      return infoOf(await (await store(request.bucket)).linkStore(named(request.name), await store(request.target_bucket)));
    },

    // Services.

    async service_find({ verb, name }) {
      const client = new Svcm(nats).client({ strategy: "stall", maxWait: 2_000 });
      const found = [];
      for await (const one of await client[verb](name ?? "")) found.push(one);
      return found;
    },
    async service_serve({ name, version, description, metadata, queue }) {
      const service = await new Svcm(nats).add({ name, version, description, metadata, queue });
      const group = service.addGroup(name);
      group.addEndpoint("double", {
        metadata: { cost: "low" },
        handler: (error, message) => {
          if (message.string() === "boom") throw new Error("it fails");
          const number = Number(new TextDecoder().decode(message.data));
          if (Number.isNaN(number)) message.respondError(400, "no number");
          else message.respond(new TextEncoder().encode(String(2 * number)));
        },
      });
      await nats.flush();
      return service.info().id;
    },

    // Documents.

    async asyncapi_check({ document }) {
      const { Parser } = require("@asyncapi/parser");
      const { document: parsed, diagnostics } = await new Parser().parse(document);
      const operations = parsed?.operations().all().map((operation) => operation.id()) ?? [];
      const said = diagnostics.map((it) => ({ severity: it.severity, code: it.code, path: it.path.join("."), message: it.message }));
      return { operations, diagnostics: said };
    },
  };

  const say = (answer) => process.stdout.write(`${JSON.stringify(answer)}\n`);
  say({ ok: "ready" });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const request = JSON.parse(line);
    try {
      say({ ok: (await operations[request.op](request)) ?? null });
    } catch (error) {
      say({ error: `${error.name}: ${error.message}` });
    }
  }
  await nats.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
