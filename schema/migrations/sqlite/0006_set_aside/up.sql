-- What a service is owed and cannot be sent: the row in its own table is stamped with the transaction -1, and stays. The reason stands here.
CREATE TABLE set_aside (
  appservice_id TEXT NOT NULL,
  position BIGINT NOT NULL,
  kind TEXT NOT NULL,
  why TEXT NOT NULL,
  at BIGINT NOT NULL,
  PRIMARY KEY (appservice_id, position)
);

-- Copies that a service has taken without deciding over the device are marks under the transaction -2. They go with their message.
CREATE INDEX to_device_copies_delivered ON to_device_copies (position) WHERE txn = -2;
