// A bridge made with matrix-bot-sdk, tested against a real homeserver.
"use strict";

const assert = require("node:assert");
const net = require("node:net");
const { after, before, beforeEach, test } = require("node:test");
const { Understudy } = require("..");

// The library loads its native module for encryption even if it is not used. Where that could not be downloaded, do without.
const native = require.resolve("@matrix-org/matrix-sdk-crypto-nodejs");
try {
  require(native);
} catch (error) {
  if (error.code !== "MODULE_NOT_FOUND") throw error;
  require.cache[native] = { id: native, filename: native, loaded: true, exports: {} };
}
const { Appservice, LogService, LogLevel, SimpleRetryJoinStrategy } = require("matrix-bot-sdk");

LogService.setLevel(LogLevel.ERROR);

let understudy;
before(async () => { understudy = await Understudy.start(); });
beforeEach(() => understudy.reset());
after(() => understudy.stop());

function freePort() {
  return new Promise((resolve) => {
    const listener = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = listener.address();
      listener.close(() => resolve(port));
    });
  });
}

// A bridge whose bot joins rooms and repeats what it is sent.
async function echoBridge() {
  const port = await freePort();
  const registration = {
    id: "echo", url: `http://127.0.0.1:${port}`, as_token: "as", hs_token: "hs",
    sender_localpart: "echobot", rate_limited: false,
    namespaces: { users: [{ exclusive: true, regex: "@echo_.*" }], rooms: [], aliases: [] },
  };
  await understudy.register(registration);
  const bridge = new Appservice({
    port, bindAddress: "127.0.0.1", homeserverName: understudy.serverName, homeserverUrl: understudy.baseUrl,
    registration, joinStrategy: new SimpleRetryJoinStrategy(),
  });
  bridge.on("room.invite", (room) => bridge.botIntent.joinRoom(room));
  bridge.on("room.message", async (room, event) => {
    if (event.content?.msgtype !== "m.text") return;
    const content = { msgtype: "m.notice", body: `you said: ${event.content.body}` };
    await bridge.botIntent.sendEvent(room, content);
  });
  await bridge.begin();
  return bridge;
}

// Say this to the bridge in a new room once its bot has joined, and wait for its answer.
async function answers(text) {
  const alice = understudy.users[0].access_token;
  const bot = `@echobot:${understudy.serverName}`;
  const { room_id: room } = await understudy.call("POST", "/createRoom", { invite: [bot] }, alice);
  for (let since = "", tries = 0; tries < 20; tries += 1) {
    const sync = await understudy.call("GET", `/sync?timeout=5000${since}`, undefined, alice);
    since = `&since=${sync.next_batch}`;
    const events = sync.rooms?.join?.[room]?.timeline?.events ?? [];
    if (events.some((event) => event.sender === bot && event.type === "m.room.member")) {
      const content = { msgtype: "m.text", body: text };
      await understudy.call("PUT", `/rooms/${room}/send/m.room.message/1`, content, alice);
    }
    const notice = events.find((event) => event.content.msgtype === "m.notice");
    if (notice) return notice.content.body;
  }
  return "no answer";
}

test("the bridge answers", async () => {
  const bridge = await echoBridge();
  try {
    assert.strictEqual(await answers("hello"), "you said: hello");
  } finally {
    bridge.stop();
  }
});

test("each test finds the first state", async () => {
  const alice = understudy.users[0].access_token;
  assert.deepStrictEqual(await understudy.call("GET", "/joined_rooms", undefined, alice), { joined_rooms: [] });
  await assert.rejects(understudy.call("GET", "/account/whoami", undefined, "as"), { status: 401 });
});

test("the bridge answers once although requests to it fail", async () => {
  const bridge = await echoBridge();
  try {
    const rule = { service: "echo", endpoint: "transactions", times: 1 };
    await understudy.fault({ status: 502 }, rule);
    await understudy.fault("cut_after", rule);
    assert.strictEqual(await answers("still there?"), "you said: still there?");
  } finally {
    bridge.stop();
  }
  const attempts = await understudy.transactions("echo");
  assert.strictEqual(attempts[0].outcome, "502");
  assert.match(attempts[1].outcome, /injected/);
  assert.strictEqual(attempts[2].outcome, "200");
  assert.strictEqual(new Set(attempts.slice(0, 3).map((attempt) => attempt.transaction)).size, 1);
});

test("a snapshot is put back", async () => {
  const alice = understudy.users[0].access_token;
  const id = await understudy.snapshot();
  await understudy.call("POST", "/createRoom", {}, alice);
  await understudy.restore(id);
  assert.deepStrictEqual(await understudy.call("GET", "/joined_rooms", undefined, alice), { joined_rooms: [] });
});
