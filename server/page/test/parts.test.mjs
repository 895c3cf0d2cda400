// Parts of the page without a browser: the texts that it copies, and the size of what it loads.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { ROOT, source } from './kit.mjs';

test('a member of a JSON text is copied byte for byte', async () => {
  const { memberText, bytesOf } = await source('json.ts');
  const text = '{"a": 1.50, "body": {"body" : {"10":1e3,"2":"\\u00e9 } \\"","x":[1, {}]} , "z":null}}';
  assert.equal(memberText(text, 'body', 'body'), '{"10":1e3,"2":"\\u00e9 } \\"","x":[1, {}]}');
  assert.equal(memberText(text, 'a'), '1.50');
  assert.equal(memberText(text, 'body', 'z'), 'null');
  assert.equal(memberText(text, 'body', 'nothing'), undefined);
  assert.equal(memberText('[]', 'a'), undefined);
  assert.equal(bytesOf('é'), 2);
});

test('YAML quotes what would mean something else', async () => {
  const { lines, scalar } = await source('yaml.ts');
  assert.equal(scalar('@alice'), '"@alice"');
  assert.equal(scalar('no'), '"no"');
  assert.equal(scalar('12'), '"12"');
  assert.equal(scalar('a: b'), '"a: b"');
  assert.equal(scalar('a #b'), '"a #b"');
  assert.equal(scalar('m.room.message'), 'm.room.message');
  assert.deepEqual(lines([{ to: 'irc', body: { events: [{ a: [] }, 1], none: {} } }]), [
    '- to: irc', '  body:', '    events:', '      - a: []', '      - 1', '    none: {}',
  ]);
});

test('a command survives quotes and hides no token in its address', async () => {
  const { asCurl } = await source('curl.ts');
  const body = { method: 'PUT', path: '/_matrix/client/v3/x', query: 'access_token=…&a=b', user: '@alice:localhost', device: 'D', body: { body: "it's" } };
  const raw = JSON.stringify({ number: 1, body });
  const { text } = asCurl({ from: 'client', raw }, 'http://h', () => undefined);
  assert.match(text, /^# TOKEN: the access token of @alice:localhost on D\ncurl -X PUT 'http:\/\/h\/_matrix\/client\/v3\/x\?a=b'/);
  assert.match(text, /'\{"body":"it'\\''s"\}'/);
});

test('every file that the page names exists', async () => {
  const { allPaths } = await source('rules.ts');
  const missing = allPaths().filter((path) => !existsSync(join(ROOT, path)));
  assert.ok(allPaths().length > 30);
  assert.deepEqual(missing, []);
});

test('what the page loads is less than 150 KiB', async () => {
  const files = ['index.html', 'page.js', 'page.css', 'icon.svg'];
  const sizes = await Promise.all(files.map(async (file) => gzipSync(await readFile(join(ROOT, 'server/page/dist', file))).length));
  const whole = sizes.reduce((sum, size) => sum + size, 0);
  console.log(`the page loads ${(whole / 1024).toFixed(1)} KiB, compressed`);
  assert.ok(whole > 5000 && whole < 150 * 1024, `${whole} bytes`);
});
