-- Users that want their events erased, and since when: a user that joins a room later sees what is left of a redacted event.
CREATE TABLE erased_users (
  user_id TEXT PRIMARY KEY NOT NULL,
  position BIGINT NOT NULL
) WITHOUT ROWID;

-- Which event of a room is nearest to a time.
CREATE INDEX events_time ON events (room_id, origin_server_ts);

-- The threads of a room, each with its last reply: what a list of them is ordered by.
CREATE TABLE threads (
  room_id TEXT NOT NULL,
  root TEXT NOT NULL,
  latest BIGINT NOT NULL,
  replies BIGINT NOT NULL,
  PRIMARY KEY (room_id, root)
) WITHOUT ROWID;
CREATE INDEX threads_latest ON threads (room_id, latest);
INSERT INTO threads (room_id, root, latest, replies)
  SELECT e.room_id, r.parent, MAX(r.position), COUNT(*)
  FROM relations r JOIN events e ON e.position = r.position
  WHERE r.rel_type = 'm.thread'
  GROUP BY e.room_id, r.parent;
