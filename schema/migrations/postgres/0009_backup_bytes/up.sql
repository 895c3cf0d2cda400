-- How many bytes the sessions of a version have, kept beside their number: adding them up at each write would read all of them.
ALTER TABLE backup_versions ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0;
UPDATE backup_versions SET bytes = (
  SELECT COALESCE(SUM(OCTET_LENGTH(s.json)), 0) FROM backup_sessions s
  WHERE s.user_id = backup_versions.user_id AND s.version = backup_versions.version
);
