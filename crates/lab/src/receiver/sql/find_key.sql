SELECT request_hash, version
FROM receiver_keys
WHERE record_key = $1 AND idempotency_key = $2;
