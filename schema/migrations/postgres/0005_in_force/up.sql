-- What a start switches on and off is part of a registration: what was in force last, as JSON; empty where nobody wrote it down.
ALTER TABLE appservices ADD COLUMN in_force TEXT COLLATE "C" NOT NULL DEFAULT '';

-- Account data that changed after this position is owed again; none where nothing was missed.
ALTER TABLE back_fills ADD COLUMN account_data_after BIGINT;
