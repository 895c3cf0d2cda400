-- Account data that an application service has still to be told: one row for each piece, however often it changes.
CREATE TABLE owed_account_data (
  appservice_id TEXT NOT NULL,
  user_id TEXT NOT NULL,
  room_id TEXT NOT NULL,
  kind TEXT NOT NULL,
  position BIGINT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, user_id, room_id, kind)
) WITHOUT ROWID;
CREATE INDEX owed_account_data_position ON owed_account_data (appservice_id, position);
CREATE INDEX owed_account_data_user ON owed_account_data (user_id);
