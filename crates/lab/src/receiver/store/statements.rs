//! The statements that both databases share, as docs/receiving.md shows them.

pub(super) const READ_ROW: &str = include_str!("../sql/read_row.sql");
pub(super) const FIND_KEY: &str = include_str!("../sql/find_key.sql");
pub(super) const WRITE_ROW: &str = include_str!("../sql/write_row.sql");
pub(super) const KEEP_KEY: &str = include_str!("../sql/keep_key.sql");
pub(super) const FORGET_KEYS: &str = include_str!("../sql/forget_keys.sql");
pub(super) const RAISE_TENURE: &str = include_str!("../sql/raise_tenure.sql");
pub(super) const CLEAR: &str = "DELETE FROM receiver_keys; DELETE FROM receiver_records;";
