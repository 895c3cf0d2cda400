-- An older version takes a deleted version for empty.
DELETE FROM backup_sessions WHERE EXISTS (
  SELECT 1 FROM backup_versions v
  WHERE v.user_id = backup_sessions.user_id AND v.version = backup_sessions.version AND v.deleted
);
UPDATE backup_versions SET sessions = 0 WHERE deleted;
ALTER TABLE backup_versions DROP COLUMN bytes;
