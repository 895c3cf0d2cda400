DROP TABLE back_fills;
ALTER TABLE to_device_copies DROP COLUMN why;
