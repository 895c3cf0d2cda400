-- Account data that an application service has still to be told: one row for each piece, however often it changes.
CREATE TABLE owed_account_data (
  appservice_id TEXT COLLATE "C" NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL,
  room_id TEXT COLLATE "C" NOT NULL,
  kind TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  txn BIGINT,
  PRIMARY KEY (appservice_id, user_id, room_id, kind)
);
CREATE INDEX owed_account_data_position ON owed_account_data (appservice_id, position);
CREATE INDEX owed_account_data_user ON owed_account_data (user_id);
