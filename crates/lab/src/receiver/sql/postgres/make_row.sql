INSERT INTO receiver_records (record_key, version, tenure, body)
VALUES ($1, 0, 0, '')
ON CONFLICT (record_key) DO NOTHING;
