-- A large content that one message brings to many devices is stored once. Rows that have a content of their own keep it in their
-- column `content`; the others name it in `shared`.
CREATE TABLE shared_contents (
  id BIGINT PRIMARY KEY NOT NULL,
  content TEXT COLLATE "C" NOT NULL
);
ALTER TABLE inbox ADD COLUMN shared BIGINT;
ALTER TABLE to_device_copies ADD COLUMN shared BIGINT;
CREATE INDEX inbox_shared ON inbox (shared) WHERE shared IS NOT NULL;
CREATE INDEX to_device_copies_shared ON to_device_copies (shared) WHERE shared IS NOT NULL;

-- A shared content goes with the last row that names it, whichever statement deletes that.
CREATE FUNCTION shared_content_gone() RETURNS TRIGGER LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM shared_contents WHERE id = OLD.shared
    AND NOT EXISTS (SELECT 1 FROM inbox WHERE shared = OLD.shared)
    AND NOT EXISTS (SELECT 1 FROM to_device_copies WHERE shared = OLD.shared);
  RETURN NULL;
END;
$$;
CREATE TRIGGER inbox_shared_gone AFTER DELETE ON inbox
  FOR EACH ROW WHEN (OLD.shared IS NOT NULL) EXECUTE FUNCTION shared_content_gone();
CREATE TRIGGER to_device_copies_shared_gone AFTER DELETE ON to_device_copies
  FOR EACH ROW WHEN (OLD.shared IS NOT NULL) EXECUTE FUNCTION shared_content_gone();

-- A line of kind `private` names the user whose keys look different now.
ALTER TABLE device_list_log ADD COLUMN about TEXT COLLATE "C" NOT NULL DEFAULT '';

-- The keys of a device that were handed out, as hashes: none is handed out again when it is uploaded again.
CREATE TABLE claimed_keys (
  user_id TEXT COLLATE "C" NOT NULL,
  device_id TEXT COLLATE "C" NOT NULL,
  hash BIGINT NOT NULL,
  position BIGINT NOT NULL,
  PRIMARY KEY (user_id, device_id, hash)
);
