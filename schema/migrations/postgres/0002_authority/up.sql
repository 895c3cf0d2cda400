-- The rule by which the service got the copy, decided on arrival like everything else about it.
ALTER TABLE to_device_copies ADD COLUMN why TEXT COLLATE "C" NOT NULL DEFAULT 'unrecorded';

-- A service whose registration came or changed, and which is still being given what it missed: how far that is.
-- While its row is here, nothing new is frozen for it.
CREATE TABLE back_fills (
  appservice_id TEXT COLLATE "C" PRIMARY KEY NOT NULL,
  up_to BIGINT NOT NULL,
  away BOOLEAN NOT NULL,
  stage TEXT COLLATE "C" NOT NULL,
  position BIGINT NOT NULL,
  room_id TEXT COLLATE "C" NOT NULL,
  user_id TEXT COLLATE "C" NOT NULL
);
