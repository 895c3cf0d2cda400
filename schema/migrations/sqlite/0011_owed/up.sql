-- What each appservice is owed, of every kind, in one order. `item` is what is needed to send it beside what `position` leads to;
-- `key` names what a later row replaces, and is empty for what is not replaced; `why` is the rule by which it is owed. `txn` is the transaction that carries it; none while
-- it waits, -1 where it is set aside, -2 where it was delivered and its message still waits for the device, -3 while its kind is off.
CREATE TABLE owed (
  position BIGINT NOT NULL,
  appservice_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  item TEXT NOT NULL,
  why TEXT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (position, appservice_id, kind, key)
) WITHOUT ROWID;
CREATE INDEX owed_next ON owed (appservice_id, txn, position);
CREATE UNIQUE INDEX owed_key ON owed (appservice_id, kind, key) WHERE key <> '';
CREATE INDEX owed_delivered ON owed (position) WHERE txn = -2;

-- A message is stored once, for its device and for every service that is owed it. It goes when it is acknowledged, by the device or
-- by the service that decides over the device, and no service waits for it any more.
ALTER TABLE inbox ADD COLUMN decided_by TEXT NOT NULL DEFAULT '';
ALTER TABLE inbox ADD COLUMN acknowledged BOOLEAN NOT NULL DEFAULT FALSE;

INSERT INTO owed (position, appservice_id, kind, key, item, why, txn)
  SELECT position, appservice_id, 'event', '', '', '', txn FROM owed_events;
INSERT INTO owed (position, appservice_id, kind, key, item, why, txn)
  SELECT position, appservice_id,
    CASE WHEN explicit THEN 'to_device' WHEN why = 'granted' THEN 'to_device_granted' ELSE 'to_device_observed' END,
    '', '', why, txn FROM to_device_copies;
INSERT INTO owed (position, appservice_id, kind, key, item, why, txn)
  SELECT position, appservice_id, 'device_list', user_id, CASE WHEN is_left THEN 'left' ELSE 'changed' END, '', txn FROM owed_device_lists;
INSERT INTO owed (position, appservice_id, kind, key, item, why, txn)
  SELECT position, appservice_id, 'count', user_id || CHAR(31) || device_id, '', '', txn FROM owed_counts;
INSERT INTO owed (position, appservice_id, kind, key, item, why, txn)
  SELECT o.position, o.appservice_id, 'account_data', o.user_id || CHAR(31) || o.room_id || CHAR(31) || o.kind, d.content, '', o.txn
  FROM owed_account_data o JOIN account_data d ON d.user_id = o.user_id AND d.room_id = o.room_id AND d.kind = o.kind;

-- The service that decides over the device of a message; of several, the first by id. Then the messages whose device has
-- acknowledged them, and which a service is still owed: only the copy had the content.
UPDATE inbox SET decided_by = COALESCE(
  (SELECT MIN(c.appservice_id) FROM to_device_copies c WHERE c.position = inbox.position AND c.explicit AND (c.txn IS NULL OR c.txn <> -2)), '');
INSERT INTO inbox (position, user_id, device_id, sender, kind, content, shared, decided_by, acknowledged)
  SELECT c.position, c.user_id, c.device_id, c.sender, c.kind, c.content, c.shared, CASE WHEN c.explicit THEN c.appservice_id ELSE '' END, TRUE
  FROM to_device_copies c
  WHERE (c.txn IS NULL OR c.txn <> -2)
    AND c.appservice_id = (SELECT MIN(o.appservice_id) FROM to_device_copies o WHERE o.position = c.position AND (o.txn IS NULL OR o.txn <> -2))
    AND NOT EXISTS (SELECT 1 FROM inbox i WHERE i.position = c.position);

-- The position of the last transaction that the service acknowledged: its inbox rows up to there are gone.
ALTER TABLE appservices ADD COLUMN acknowledged BIGINT NOT NULL DEFAULT 0;

DROP TRIGGER to_device_copies_shared_gone;
DROP TRIGGER inbox_shared_gone;
DROP TABLE to_device_copies;
DROP TABLE owed_events;
DROP TABLE owed_device_lists;
DROP TABLE owed_counts;
DROP TABLE owed_account_data;
DELETE FROM shared_contents WHERE NOT EXISTS (SELECT 1 FROM inbox WHERE shared = shared_contents.id);
CREATE TRIGGER inbox_shared_gone AFTER DELETE ON inbox WHEN OLD.shared IS NOT NULL BEGIN
  DELETE FROM shared_contents WHERE id = OLD.shared AND NOT EXISTS (SELECT 1 FROM inbox WHERE shared = OLD.shared);
END;

DROP INDEX inbox_device;
CREATE INDEX inbox_device ON inbox (user_id, device_id, acknowledged, position);
CREATE INDEX inbox_decided ON inbox (decided_by, position) WHERE decided_by <> '' AND NOT acknowledged;
CREATE INDEX inbox_acknowledged ON inbox (position) WHERE acknowledged;
