-- The one counter: every durable fact takes its position from here.
CREATE TABLE counter (
  id INTEGER PRIMARY KEY NOT NULL,
  position BIGINT NOT NULL
);
INSERT INTO counter (id, position) VALUES (1, 0);

-- What the server is: its name, its signing key.
CREATE TABLE server (
  key TEXT PRIMARY KEY NOT NULL,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- How far each pass has read the log it follows.
CREATE TABLE cursors (
  name TEXT PRIMARY KEY NOT NULL,
  position BIGINT NOT NULL
) WITHOUT ROWID;

-- accounts ------------------------------------------------------------

CREATE TABLE users (
  user_id TEXT PRIMARY KEY NOT NULL,
  password_hash TEXT,
  appservice_id TEXT,
  created_at BIGINT NOT NULL,
  deactivated BOOLEAN NOT NULL,
  display_name TEXT,
  avatar_url TEXT,
  profile TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE devices (
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  display_name TEXT,
  appservice_id TEXT,
  own_login BOOLEAN NOT NULL,
  born BIGINT NOT NULL,
  last_seen_ts BIGINT,
  last_seen_ip TEXT,
  PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

CREATE TABLE access_tokens (
  token_hash TEXT PRIMARY KEY NOT NULL,
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  created_at BIGINT NOT NULL
) WITHOUT ROWID;
CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);

CREATE TABLE account_data (
  user_id TEXT NOT NULL,
  room_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  content TEXT NOT NULL,
  position BIGINT NOT NULL,
  PRIMARY KEY (user_id, room_id, kind)
) WITHOUT ROWID;
CREATE INDEX account_data_position ON account_data (user_id, position);

CREATE TABLE filters (
  user_id TEXT NOT NULL,
  filter_id TEXT NOT NULL,
  filter TEXT NOT NULL,
  PRIMARY KEY (user_id, filter_id)
) WITHOUT ROWID;

-- What a client's own transaction id was answered, so that a repeated request is answered alike.
CREATE TABLE client_transactions (
  sender TEXT NOT NULL,
  scope TEXT NOT NULL,
  txn_id TEXT NOT NULL,
  response TEXT NOT NULL,
  created_at BIGINT NOT NULL,
  PRIMARY KEY (sender, scope, txn_id)
) WITHOUT ROWID;
CREATE INDEX client_transactions_age ON client_transactions (created_at);

-- keys ----------------------------------------------------------------

CREATE TABLE device_keys (
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  json TEXT NOT NULL,
  PRIMARY KEY (user_id, device_id)
) WITHOUT ROWID;

-- One tree and no other index: fifty keys are written at a time, and the oldest is the first of its device and algorithm.
-- That an id is there once is for the one writer to see, which reads the device's keys before it adds any.
CREATE TABLE one_time_keys (
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  position BIGINT NOT NULL,
  key_id TEXT NOT NULL,
  json TEXT NOT NULL,
  PRIMARY KEY (user_id, device_id, algorithm, position)
) WITHOUT ROWID;

CREATE TABLE fallback_keys (
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  algorithm TEXT NOT NULL,
  key_id TEXT NOT NULL,
  json TEXT NOT NULL,
  used BOOLEAN NOT NULL,
  PRIMARY KEY (user_id, device_id, algorithm)
) WITHOUT ROWID;

CREATE TABLE cross_signing_keys (
  user_id TEXT NOT NULL,
  usage TEXT NOT NULL,
  public_key TEXT NOT NULL,
  json TEXT NOT NULL,
  PRIMARY KEY (user_id, usage)
) WITHOUT ROWID;

-- A signature that somebody uploaded over a key: target_key is a device id or a public key. signer_user is empty where the
-- owner of the key signed it, so that those and a reader's own are found in one look-up.
CREATE TABLE key_signatures (
  target_user TEXT NOT NULL,
  signer_user TEXT NOT NULL,
  target_key TEXT NOT NULL,
  signer_key TEXT NOT NULL,
  signature TEXT NOT NULL,
  PRIMARY KEY (target_user, signer_user, target_key, signer_key)
) WITHOUT ROWID;
CREATE INDEX key_signatures_signer ON key_signatures (signer_user, signer_key);

CREATE TABLE backup_versions (
  user_id TEXT NOT NULL,
  version BIGINT NOT NULL,
  algorithm TEXT NOT NULL,
  auth_data TEXT NOT NULL,
  etag BIGINT NOT NULL,
  sessions BIGINT NOT NULL,
  deleted BOOLEAN NOT NULL,
  PRIMARY KEY (user_id, version)
) WITHOUT ROWID;

CREATE TABLE backup_sessions (
  user_id TEXT NOT NULL,
  version BIGINT NOT NULL,
  room_id TEXT NOT NULL,
  session_id TEXT NOT NULL,
  first_message_index BIGINT NOT NULL,
  forwarded_count BIGINT NOT NULL,
  is_verified BOOLEAN NOT NULL,
  json TEXT NOT NULL,
  PRIMARY KEY (user_id, version, room_id, session_id)
) WITHOUT ROWID;

-- rooms ---------------------------------------------------------------

CREATE TABLE rooms (
  room_id TEXT PRIMARY KEY NOT NULL,
  version TEXT NOT NULL,
  creator TEXT NOT NULL,
  tip TEXT NOT NULL,
  depth BIGINT NOT NULL,
  joined BIGINT NOT NULL,
  invited BIGINT NOT NULL,
  is_public BOOLEAN NOT NULL
) WITHOUT ROWID;

CREATE INDEX rooms_public ON rooms (is_public, joined DESC, room_id);

CREATE TABLE events (
  position INTEGER PRIMARY KEY NOT NULL,
  event_id TEXT NOT NULL,
  room_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  state_key TEXT,
  sender TEXT NOT NULL,
  origin_server_ts BIGINT NOT NULL,
  pdu TEXT NOT NULL,
  replaces TEXT,
  redacted_by TEXT,
  device_id TEXT,
  txn_id TEXT
);
CREATE UNIQUE INDEX events_id ON events (event_id);
CREATE INDEX events_room ON events (room_id, position);
CREATE INDEX events_state ON events (room_id, kind, state_key, position) WHERE state_key IS NOT NULL;

-- Which events say something about which others; a redacted one says nothing any more.
CREATE TABLE relations (
  position INTEGER PRIMARY KEY NOT NULL,
  parent TEXT NOT NULL,
  rel_type TEXT NOT NULL,
  kind TEXT NOT NULL,
  sender TEXT NOT NULL,
  key TEXT NOT NULL
);
CREATE INDEX relations_parent ON relations (parent, position);
CREATE INDEX relations_said ON relations (parent, rel_type, kind, sender, key);

CREATE TABLE room_state (
  room_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  state_key TEXT NOT NULL,
  event_id TEXT NOT NULL,
  position BIGINT NOT NULL,
  PRIMARY KEY (room_id, kind, state_key)
) WITHOUT ROWID;

CREATE TABLE memberships (
  room_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  membership TEXT NOT NULL,
  position BIGINT NOT NULL,
  event_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  display_name TEXT,
  avatar_url TEXT,
  forgotten BOOLEAN NOT NULL,
  PRIMARY KEY (room_id, user_id)
) WITHOUT ROWID;
CREATE INDEX memberships_user ON memberships (user_id, membership, room_id);
CREATE INDEX memberships_room ON memberships (room_id, membership, user_id);
CREATE INDEX memberships_news ON memberships (user_id, position);

CREATE TABLE aliases (
  alias TEXT PRIMARY KEY NOT NULL,
  room_id TEXT NOT NULL,
  creator TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX aliases_room ON aliases (room_id);

CREATE TABLE receipts (
  room_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  thread_id TEXT NOT NULL,
  event_id TEXT NOT NULL,
  ts BIGINT NOT NULL,
  position BIGINT NOT NULL,
  PRIMARY KEY (room_id, user_id, kind, thread_id)
) WITHOUT ROWID;
CREATE INDEX receipts_position ON receipts (room_id, position);

-- the to-device inbox -------------------------------------------------

CREATE TABLE inbox (
  position INTEGER PRIMARY KEY NOT NULL,
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  kind TEXT NOT NULL,
  content TEXT NOT NULL
);
CREATE INDEX inbox_device ON inbox (user_id, device_id, position);

-- One copy for each interested application service; it carries all that is needed to send it.
CREATE TABLE to_device_copies (
  appservice_id TEXT NOT NULL,
  position BIGINT NOT NULL,
  explicit BOOLEAN NOT NULL,
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  kind TEXT NOT NULL,
  content TEXT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, position)
) WITHOUT ROWID;
CREATE INDEX to_device_copies_device ON to_device_copies (user_id, device_id);

-- device lists --------------------------------------------------------

-- Everything that can change who must track whose devices, in order. `covers` is the position of the event whose write
-- logged the line, or the line's own: nothing from there on is sent before the line is settled.
CREATE TABLE device_list_log (
  position INTEGER PRIMARY KEY NOT NULL,
  kind TEXT NOT NULL,
  user_id TEXT NOT NULL,
  room_id TEXT NOT NULL,
  appservice_id TEXT NOT NULL,
  covers BIGINT NOT NULL
);
CREATE INDEX device_list_log_user ON device_list_log (user_id, position);

-- How many joined members an application service has in a room; no row is none.
CREATE TABLE appservice_rooms (
  appservice_id TEXT NOT NULL,
  room_id TEXT NOT NULL,
  joined BIGINT NOT NULL,
  PRIMARY KEY (appservice_id, room_id)
) WITHOUT ROWID;
CREATE INDEX appservice_rooms_room ON appservice_rooms (room_id);

-- Whom an application service has been told to track.
CREATE TABLE tracked (
  appservice_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  PRIMARY KEY (appservice_id, user_id)
) WITHOUT ROWID;
CREATE INDEX tracked_user ON tracked (user_id);

CREATE TABLE owed_device_lists (
  appservice_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  position BIGINT NOT NULL,
  is_left BOOLEAN NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, user_id)
) WITHOUT ROWID;
CREATE INDEX owed_device_lists_position ON owed_device_lists (appservice_id, position);

-- application services ------------------------------------------------

CREATE TABLE appservices (
  appservice_id TEXT PRIMARY KEY NOT NULL,
  registration TEXT NOT NULL,
  file TEXT NOT NULL,
  present BOOLEAN NOT NULL,
  last_txn BIGINT NOT NULL
) WITHOUT ROWID;

CREATE TABLE owed_events (
  appservice_id TEXT NOT NULL,
  position BIGINT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, position)
) WITHOUT ROWID;

CREATE TABLE owed_counts (
  appservice_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  position BIGINT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, user_id, device_id)
) WITHOUT ROWID;
CREATE INDEX owed_counts_position ON owed_counts (appservice_id, position);

-- The one transaction of a service that has been composed and not acknowledged: byte for byte what is sent.
CREATE TABLE frozen_transactions (
  appservice_id TEXT PRIMARY KEY NOT NULL,
  txn_id BIGINT NOT NULL,
  cut BIGINT NOT NULL,
  body TEXT NOT NULL,
  frozen_at BIGINT NOT NULL
) WITHOUT ROWID;

-- A little memory for prototypes of proposals.
CREATE TABLE scratch (
  msc BIGINT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (msc, key)
) WITHOUT ROWID;
