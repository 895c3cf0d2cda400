ALTER TABLE back_fills DROP COLUMN account_data_after;
ALTER TABLE appservices DROP COLUMN in_force;
