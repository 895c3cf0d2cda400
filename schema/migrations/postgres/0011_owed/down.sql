CREATE TABLE owed_events (
  appservice_id TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, position)
);
CREATE TABLE to_device_copies (
  appservice_id TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  explicit BOOLEAN NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL,
  sender TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  content TEXT COLLATE "C" NOT NULL,
  txn BIGINT,
  why TEXT COLLATE "C" NOT NULL DEFAULT 'unrecorded',
  shared BIGINT,
  PRIMARY KEY (appservice_id, position)
);
CREATE INDEX to_device_copies_device ON to_device_copies (user_id, device_id);
CREATE INDEX to_device_copies_delivered ON to_device_copies (position) WHERE txn = -2;
CREATE INDEX to_device_copies_shared ON to_device_copies (shared) WHERE shared IS NOT NULL;
CREATE TABLE owed_device_lists (
  appservice_id TEXT COLLATE "C" NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  is_left BOOLEAN NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, user_id)
);
CREATE INDEX owed_device_lists_position ON owed_device_lists (appservice_id, position);
CREATE TABLE owed_counts (
  appservice_id TEXT COLLATE "C" NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, user_id, device_id)
);
CREATE INDEX owed_counts_position ON owed_counts (appservice_id, position);
CREATE TABLE owed_account_data (
  appservice_id TEXT COLLATE "C" NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL,
  room_id TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, user_id, room_id, kind)
);
CREATE INDEX owed_account_data_position ON owed_account_data (appservice_id, position);
CREATE INDEX owed_account_data_user ON owed_account_data (user_id);

-- What waits while its kind is off simply waits in an older version.
UPDATE owed SET txn = NULL WHERE txn = -3;
INSERT INTO owed_events SELECT appservice_id, position, txn FROM owed WHERE kind = 'event';
INSERT INTO to_device_copies (appservice_id, position, explicit, user_id, device_id, sender, kind, content, txn, why, shared)
  SELECT o.appservice_id, o.position, o.kind = 'to_device', i.user_id, i.device_id, i.sender, i.kind,
    CASE WHEN o.txn = -2 THEN '' ELSE i.content END, o.txn, o.why, i.shared
  FROM owed o JOIN inbox i ON i.position = o.position WHERE o.kind LIKE 'to_device%';
INSERT INTO owed_device_lists SELECT appservice_id, key, position, item = 'left', txn FROM owed WHERE kind = 'device_list';
INSERT INTO owed_counts SELECT o.appservice_id, split_part(o.key, CHR(31), 1), split_part(o.key, CHR(31), 2), o.position, o.txn FROM owed o WHERE o.kind = 'count';
INSERT INTO owed_account_data SELECT o.appservice_id, split_part(o.key, CHR(31), 1), split_part(o.key, CHR(31), 2), split_part(o.key, CHR(31), 3), o.position, o.txn
  FROM owed o WHERE o.kind = 'account_data';

CREATE OR REPLACE FUNCTION shared_content_gone() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM shared_contents WHERE id = OLD.shared
    AND NOT EXISTS (SELECT 1 FROM inbox WHERE shared = OLD.shared)
    AND NOT EXISTS (SELECT 1 FROM to_device_copies WHERE shared = OLD.shared);
  RETURN NULL;
END;
$$;
CREATE TRIGGER to_device_copies_shared_gone AFTER DELETE ON to_device_copies
  FOR EACH ROW WHEN (OLD.shared IS NOT NULL) EXECUTE FUNCTION shared_content_gone();
DELETE FROM inbox WHERE acknowledged;
DROP INDEX inbox_acknowledged;
DROP INDEX inbox_decided;
DROP INDEX inbox_device;
CREATE INDEX inbox_device ON inbox (user_id, device_id, position);
ALTER TABLE inbox DROP COLUMN acknowledged;
ALTER TABLE inbox DROP COLUMN decided_by;
ALTER TABLE appservices DROP COLUMN acknowledged;
DROP TABLE owed;
