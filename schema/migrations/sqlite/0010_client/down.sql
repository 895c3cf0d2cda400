DROP TABLE threads;
DROP INDEX events_time;
DROP TABLE erased_users;
