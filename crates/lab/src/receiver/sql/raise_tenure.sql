UPDATE receiver_records
SET tenure = $2
WHERE record_key = $1 AND tenure < $2;
