INSERT INTO receiver_keys (record_key, idempotency_key, request_hash, version)
VALUES ($1, $2, $3, $4);
