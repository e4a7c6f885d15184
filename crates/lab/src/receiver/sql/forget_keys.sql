DELETE FROM receiver_keys
WHERE record_key = $1 AND version <= $2;
