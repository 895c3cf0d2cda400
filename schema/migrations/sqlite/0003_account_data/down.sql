DROP TABLE owed_account_data;
