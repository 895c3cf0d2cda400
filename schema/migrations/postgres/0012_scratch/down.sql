DROP INDEX scratch_due;
DROP INDEX scratch_position;
ALTER TABLE scratch DROP COLUMN due;
ALTER TABLE scratch DROP COLUMN position;
