INSERT INTO receiver_records (record_key, version, record_version, tenure, content_type, body)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (record_key) DO UPDATE
SET version = excluded.version, record_version = excluded.record_version, tenure = excluded.tenure,
    content_type = excluded.content_type, body = excluded.body;
