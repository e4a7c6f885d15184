//! The statements that both databases share, as docs/receiving.md shows them.

pub(super) const READ_ROW: &str = include_str!("../sql/read_row.sql");
pub(super) const FIND_KEY: &str = include_str!("../sql/find_key.sql");
pub(super) const WRITE_ROW: &str = include_str!("../sql/write_row.sql");
pub(super) const KEEP_KEY: &str = include_str!("../sql/keep_key.sql");
pub(super) const FORGET_KEYS: &str = include_str!("../sql/forget_keys.sql");
pub(super) const RAISE_TENURE: &str = include_str!("../sql/raise_tenure.sql");
pub(super) const CLEAR: &str = "DELETE FROM receiver_keys; DELETE FROM receiver_records;";

/// Writes the record, and the idempotency key with its answer; an `sqlx::Result<()>`. A macro, since the types of the two
/// databases' connections have no trait in common that would make this shorter.
macro_rules! write_both {
    ($connection:expr, $change:ident, $row:ident) => {
        async {
            let write = sqlx::query($crate::receiver::store::statements::WRITE_ROW)
                .bind(&$change.record_key)
                .bind(signed($row.version))
                .bind($row.record_version)
                .bind(signed($row.tenure))
                .bind(&$row.content_type)
                .bind(&$row.body);
            write.execute($connection).await?;
            let Some(key) = &$change.idempotency_key else { return Ok(()) };
            let keep = sqlx::query($crate::receiver::store::statements::KEEP_KEY)
                .bind(&$change.record_key)
                .bind(key)
                .bind($crate::receiver::store::row::request_hash($change))
                .bind(signed($row.version));
            keep.execute($connection).await?;
            let up_to = $crate::receiver::store::row::forget_up_to($row.version);
            if up_to > 0 {
                let forget = sqlx::query($crate::receiver::store::statements::FORGET_KEYS)
                    .bind(&$change.record_key)
                    .bind(signed(up_to));
                forget.execute($connection).await?;
            }
            sqlx::Result::Ok(())
        }
        .await
    };
}
pub(super) use write_both;
