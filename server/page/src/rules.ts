/** The code and the chapter behind a message. Paths are in the repository; `test/paths.test.mjs` checks that they exist. */

import type { Message } from './message';

export interface Behind {
  /** The file that handles the message. */
  handler: string;
  /** The pure decisions of the actor. */
  rule?: string;
  chapter?: string;
}

const A = 'actors/src';
const BOOK = 'spec-notes/src';

/** What holds for all messages to an actor. */
const ACTORS: Record<string, Behind> = {
  accounts: { handler: `${A}/accounts/mod.rs`, rule: `${A}/accounts/rules/mod.rs`, chapter: `${BOOK}/asked-masquerading.md` },
  rooms: { handler: `${A}/rooms/mod.rs`, rule: `${A}/rooms/rules/mod.rs`, chapter: `${BOOK}/leave.md` },
  device_lists: { handler: `${A}/device_lists/mod.rs`, rule: `${A}/device_lists/rules.rs`, chapter: `${BOOK}/leave.md` },
  key_store: { handler: `${A}/key_store/mod.rs`, rule: `${A}/key_store/rules/mod.rs`, chapter: `${BOOK}/claim.md` },
  key_proxy: { handler: `${A}/key_proxy/mod.rs`, rule: `${A}/key_proxy/rules.rs`, chapter: `${BOOK}/asked-proxies.md` },
  to_device_inbox: { handler: `${A}/to_device_inbox/mod.rs`, rule: `${A}/to_device_inbox/rules/mod.rs`, chapter: `${BOOK}/to-device.md` },
  appservices: { handler: `${A}/appservices/mod.rs`, rule: `${A}/appservices/rules/mod.rs`, chapter: `${BOOK}/registrations.md` },
  appservice_sender: { handler: `${A}/appservice_sender/mod.rs`, rule: `${A}/appservice_sender/rules.rs`, chapter: `${BOOK}/transactions.md` },
  appservice_queries: { handler: `${A}/appservice_queries/mod.rs`, rule: `${A}/appservice_queries/rules.rs`, chapter: `${BOOK}/asked-provisioning.md` },
  proposals: { handler: `${A}/proposals/mod.rs`, rule: `${A}/proposals/rules.rs`, chapter: `${BOOK}/proposals.md` },
  sync: { handler: `${A}/sync/mod.rs`, rule: `${A}/sync/rules/mod.rs`, chapter: `${BOOK}/asked-sync-or-transactions.md` },
  http: { handler: 'server/src/http/router.rs', rule: 'server/src/http/caller.rs', chapter: `${BOOK}/door.md` },
  store: { handler: 'schema/src/store/mod.rs' },
  wake: { handler: `${A}/runtime/wake/mod.rs` },
};

/** Messages whose handler stands in a file of its own. */
const MESSAGES: Record<string, Partial<Behind>> = {
  'accounts Register': { handler: `${A}/accounts/register.rs`, chapter: `${BOOK}/asked-provisioning.md` },
  'accounts LogIn': { handler: `${A}/accounts/log_in.rs` },
  'accounts LogOut': { handler: `${A}/accounts/log_in.rs` },
  'accounts PutDevice': { handler: `${A}/accounts/devices.rs` },
  'accounts DeleteDevices': { handler: `${A}/accounts/devices.rs` },
  'accounts DeviceSeen': { handler: `${A}/accounts/seen.rs` },
  'accounts SetAccountData': { handler: `${A}/accounts/client_data.rs`, chapter: `${BOOK}/asked-account-data.md` },
  'rooms CreateRoom': { handler: `${A}/rooms/create.rs` },
  'rooms SendEvent': { handler: `${A}/rooms/sending.rs` },
  'rooms SetState': { handler: `${A}/rooms/sending.rs` },
  'rooms Redact': { handler: `${A}/rooms/sending.rs` },
  'rooms Enter': { handler: `${A}/rooms/members.rs` },
  'rooms ChangeMembership': { handler: `${A}/rooms/members.rs` },
  'to_device_inbox Deposit': { handler: `${A}/to_device_inbox/deposit.rs` },
  'to_device_inbox Acknowledge': { handler: `${A}/to_device_inbox/acknowledge.rs` },
  'to_device_inbox Acknowledged': { handler: `${A}/to_device_inbox/acknowledge.rs` },
  'key_store Upload': { handler: `${A}/key_store/upload.rs`, rule: `${A}/key_store/rules/upload.rs` },
  'key_store Claim': { handler: `${A}/key_store/claim.rs` },
  'key_store ClaimFallback': { handler: `${A}/key_store/claim.rs` },
  'key_store UploadSigning': { handler: `${A}/key_store/signing.rs`, rule: `${A}/key_store/rules/signing.rs` },
  'key_store UploadSignatures': { handler: `${A}/key_store/signing.rs`, rule: `${A}/key_store/rules/signing.rs` },
  'key_proxy Claim': { handler: `${A}/key_proxy/claim.rs` },
  'key_proxy Query': { handler: `${A}/key_proxy/query.rs` },
  'appservice_sender Resend': { handler: `${A}/appservice_sender/resend.rs` },
  'appservice_sender Ping': { handler: `${A}/appservice_sender/ping.rs` },
  'sync SetTyping': { handler: `${A}/sync/typing.rs`, chapter: `${BOOK}/asked-ephemeral.md` },
  'sync NewReceipt': { handler: `${A}/sync/receipts.rs`, chapter: `${BOOK}/asked-ephemeral.md` },
  'sync SetPresence': { handler: `${A}/sync/presence.rs`, chapter: `${BOOK}/asked-ephemeral.md` },
  'service Attempt': {
    handler: `${A}/appservice_sender/send.rs`, rule: `${A}/appservice_sender/rules.rs`, chapter: `${BOOK}/transactions.md`,
  },
  'service Answered': {
    handler: `${A}/appservice_queries/mod.rs`, rule: `${A}/appservice_queries/rules.rs`, chapter: `${BOOK}/asked-provisioning.md`,
  },
};

/** The file of the routes of a request, by the beginning of its path. */
const ROUTES: [RegExp, string, string?][] = [
  [/^\/sendToDevice\//, 'to_device', 'to-device'],
  [/^\/keys\/(upload|claim|query|changes)/, 'keys', 'claim'],
  [/^\/keys\/(device_signing|signatures)/, 'cross_signing'],
  [/^\/(join|knock)\/|^\/rooms\/[^/]+\/(join|leave|invite|kick|ban|unban|forget|knock)/, 'membership', 'leave'],
  [/^\/rooms\/[^/]+\/(send|redact)\//, 'send'],
  [/^\/rooms\/[^/]+\/state/, 'state'],
  [/^\/createRoom/, 'rooms'],
  [/^\/sync/, 'sync', 'asked-sync-or-transactions'],
  [/^\/register/, 'register', 'asked-provisioning'],
  [/^\/(login|logout)/, 'session'],
  [/^\/(devices|delete_devices)/, 'devices', 'asked-masquerading'],
  [/^\/appservice\//, 'appservice', 'registrations'],
  [/^\/thirdparty\//, 'third_party', 'asked-third-party'],
  [/^\/directory\//, 'directory', 'asked-provisioning'],
  [/^\/profile\//, 'profile'],
  [/^\/rooms\/[^/]+\/typing/, 'typing', 'asked-ephemeral'],
  [/^\/rooms\/[^/]+\/receipt/, 'receipts', 'asked-ephemeral'],
  [/^\/presence\//, 'presence', 'asked-ephemeral'],
];

function ofRequest(path: string): Behind {
  const short = path.replace(/^\/_matrix\/client\/[^/]+/, '').replace(/^\/unstable\/[^/]+/, '');
  const found = ROUTES.find(([pattern]) => pattern.test(short));
  if (!found) return ACTORS.http!;
  const [, file, chapter] = found;
  return { handler: `server/src/routes/${file}.rs`, rule: ACTORS.http!.rule, chapter: `${BOOK}/${chapter ?? 'door'}.md` };
}

/** The code and the chapter behind a message. */
export function behind(message: Message, path: string | undefined): Behind | undefined {
  if (message.from === 'client' || message.to === 'client') return ofRequest(path ?? '');
  const actor = ACTORS[message.to] ?? ACTORS[message.from];
  const own = MESSAGES[`${message.to} ${message.what}`];
  return own ? ({ ...actor, ...own } as Behind) : actor;
}

/** Every path that `behind` can give. */
export function allPaths(): string[] {
  const all = [...Object.values(ACTORS), ...Object.values(MESSAGES)].flatMap((b) => [b.handler, b.rule, b.chapter]);
  const routes = ROUTES.flatMap(([, file, chapter]) => [`server/src/routes/${file}.rs`, chapter && `${BOOK}/${chapter}.md`]);
  return [...new Set([...all, ...routes].filter((path): path is string => !!path))];
}
