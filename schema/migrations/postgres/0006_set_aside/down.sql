DROP INDEX to_device_copies_delivered;
-- Both stamps are unknown to an older version: what was set aside waits again, what was delivered is gone.
UPDATE owed_events SET txn = NULL WHERE txn = -1;
UPDATE to_device_copies SET txn = NULL WHERE txn = -1;
UPDATE owed_device_lists SET txn = NULL WHERE txn = -1;
UPDATE owed_counts SET txn = NULL WHERE txn = -1;
UPDATE owed_account_data SET txn = NULL WHERE txn = -1;
DELETE FROM to_device_copies WHERE txn = -2;
DROP TABLE set_aside;
