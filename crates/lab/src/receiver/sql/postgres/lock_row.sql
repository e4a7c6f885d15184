SELECT version, record_version, tenure, content_type, body
FROM receiver_records
WHERE record_key = $1
FOR UPDATE;
