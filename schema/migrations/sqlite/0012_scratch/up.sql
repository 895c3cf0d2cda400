-- The position at which a value was stored, so that what changed since a token can be found, and the time of its timer in milliseconds
-- since the epoch.
ALTER TABLE scratch ADD COLUMN position BIGINT NOT NULL DEFAULT 0;
ALTER TABLE scratch ADD COLUMN due BIGINT;
CREATE INDEX scratch_position ON scratch (msc, position);
CREATE INDEX scratch_due ON scratch (due) WHERE due IS NOT NULL;
