-- A large content that one message brings to many devices is stored once. Rows that have a content of their own keep it in their
-- column `content`; the others name it in `shared`.
CREATE TABLE shared_contents (
  id INTEGER PRIMARY KEY NOT NULL,
  content TEXT NOT NULL
);
ALTER TABLE inbox ADD COLUMN shared BIGINT;
ALTER TABLE to_device_copies ADD COLUMN shared BIGINT;
CREATE INDEX inbox_shared ON inbox (shared) WHERE shared IS NOT NULL;
CREATE INDEX to_device_copies_shared ON to_device_copies (shared) WHERE shared IS NOT NULL;

-- A shared content goes with the last row that names it, whichever statement deletes that.
CREATE TRIGGER inbox_shared_gone AFTER DELETE ON inbox WHEN OLD.shared IS NOT NULL BEGIN
  DELETE FROM shared_contents WHERE id = OLD.shared
    AND NOT EXISTS (SELECT 1 FROM inbox WHERE shared = OLD.shared)
    AND NOT EXISTS (SELECT 1 FROM to_device_copies WHERE shared = OLD.shared);
END;
CREATE TRIGGER to_device_copies_shared_gone AFTER DELETE ON to_device_copies WHEN OLD.shared IS NOT NULL BEGIN
  DELETE FROM shared_contents WHERE id = OLD.shared
    AND NOT EXISTS (SELECT 1 FROM inbox WHERE shared = OLD.shared)
    AND NOT EXISTS (SELECT 1 FROM to_device_copies WHERE shared = OLD.shared);
END;

-- A line of kind `private` names the user whose keys look different now.
ALTER TABLE device_list_log ADD COLUMN about TEXT NOT NULL DEFAULT '';

-- The keys of a device that were handed out, as hashes: none is handed out again when it is uploaded again.
CREATE TABLE claimed_keys (
  user_id TEXT NOT NULL,
  device_id TEXT NOT NULL,
  hash BIGINT NOT NULL,
  position BIGINT NOT NULL,
  PRIMARY KEY (user_id, device_id, hash)
) WITHOUT ROWID;
