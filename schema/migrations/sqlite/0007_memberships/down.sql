DROP INDEX memberships_forgotten;
ALTER TABLE memberships ADD COLUMN forgotten BOOLEAN NOT NULL DEFAULT FALSE;
UPDATE memberships SET forgotten = (forgotten_at > position);
ALTER TABLE memberships DROP COLUMN forgotten_at;
ALTER TABLE memberships DROP COLUMN left_at;
