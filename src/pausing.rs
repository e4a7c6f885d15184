//! Pauses and resumes targets and records for people: what is checked, and in which words it is refused, is the same for
//! commands, pages and the API.

use crate::config::Config;
use crate::printable::printable;
use crate::wall_time::format_millis;
use lanekeeper_core::update::RecordKey;
use lanekeeper_ledger::{
    AnyLedger, LedgerError, Operations as _, OperatorReason, PAUSED_RECORDS_MAX, PAUSED_TARGETS_MAX, Pause,
    Paused, Resumed, StoredParkReason,
};

/// Why nothing was paused or resumed. The texts may be shown to people.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// The config has no such target, and it is not paused.
    #[error("{0}")]
    UnknownTarget(String),
    /// It is paused already, and stays so as it was.
    #[error("{what} is paused already, {since}")]
    AlreadyPaused {
        /// The target or the record.
        what: String,
        /// Since when, by whom and why.
        since: String,
    },
    /// It is not paused.
    #[error("{0} is not paused")]
    NotPaused(String),
    /// So many are paused that no more can be.
    #[error("{0}")]
    TooManyPaused(String),
    /// The ledger does not answer, or refuses.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// What resuming a record did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumedRecord {
    /// So many updates were parked because of the pause, and are released.
    pub updates: u64,
    /// It stays parked for another reason, and waits for a release.
    pub still_parked: Option<StoredParkReason>,
}

/// For people: since when, by whom and why.
pub fn since(pause: &Pause) -> String {
    format!("since {} by {}", format_millis(pause.since_ms), printable(&by(&pause.operator_reason)))
}

/// For people: by whom and why. As it was written: it can have any character.
pub fn by(OperatorReason { who, why }: &OperatorReason) -> String {
    if why.is_empty() { who.clone() } else { format!("{who}: {why}") }
}

/// Returns true if the config has a target of this name.
pub fn is_known(config: &Config, name: &str) -> bool {
    config.targets.iter().any(|target| target.name == name)
}

/// Says since when the target is paused, by whom and why; `None`: it is not. It need not be in the config.
///
/// # Errors
/// The ledger does not answer.
pub async fn pause_of_target(ledger: &AnyLedger, name: &str) -> Result<Option<Pause>, LedgerError> {
    let paused = ledger.paused_targets().await?;
    Ok(paused.into_iter().find(|target| target.name == name).map(|target| target.pause))
}

/// Fails if the target cannot be paused now.
///
/// # Errors
/// The config has no such target, or it is paused already.
pub async fn check_pause_target(ledger: &AnyLedger, config: &Config, name: &str) -> Result<(), PauseError> {
    known(config, name)?;
    match pause_of_target(ledger, name).await? {
        None => Ok(()),
        Some(pause) => Err(already(name, &pause)),
    }
}

/// Pauses a target of the config. When it has returned, all dispatchers that use the ledger keep to it within two seconds.
///
/// # Errors
/// The config has no such target, it is paused already, or too many are.
pub async fn pause_target(
    ledger: &AnyLedger,
    config: &Config,
    name: &str,
    operator_reason: &OperatorReason,
) -> Result<(), PauseError> {
    known(config, name)?;
    match ledger.pause_target(name, operator_reason).await? {
        Paused::Done => Ok(()),
        Paused::Already(pause) => Err(already(name, &pause)),
        Paused::Full => Err(PauseError::TooManyPaused(format!(
            "{PAUSED_TARGETS_MAX} targets are paused, and no more can be: resume those that no config has any more"
        ))),
    }
}

/// Returns the pause that a resume would end.
///
/// # Errors
/// The target is not paused.
pub async fn check_resume_target(
    ledger: &AnyLedger,
    config: &Config,
    name: &str,
) -> Result<Pause, PauseError> {
    pause_of_target(ledger, name).await?.ok_or_else(|| target_not_paused(config, name))
}

/// Resumes a target, also one that the config does not have any more.
///
/// # Errors
/// The target is not paused.
pub async fn resume_target(
    ledger: &AnyLedger,
    config: &Config,
    name: &str,
    operator_reason: &OperatorReason,
) -> Result<(), PauseError> {
    let resumed = ledger.resume_target(name, operator_reason).await?;
    if resumed { Ok(()) } else { Err(target_not_paused(config, name)) }
}

/// Fails if the record cannot be paused now.
///
/// # Errors
/// It is paused already.
pub async fn check_pause_record(ledger: &AnyLedger, record_key: &RecordKey) -> Result<(), PauseError> {
    match ledger.record_state(record_key).await?.paused {
        None => Ok(()),
        Some(pause) => Err(already(record_key.as_str(), &pause)),
    }
}

/// Pauses a record. See [`lanekeeper_ledger::Operations::pause_record`].
///
/// # Errors
/// It is paused already, or too many are.
pub async fn pause_record(
    ledger: &AnyLedger,
    record_key: &RecordKey,
    operator_reason: &OperatorReason,
) -> Result<(), PauseError> {
    match ledger.pause_record(record_key, operator_reason).await? {
        Paused::Done => Ok(()),
        Paused::Already(pause) => Err(already(record_key.as_str(), &pause)),
        Paused::Full => Err(PauseError::TooManyPaused(format!(
            "{PAUSED_RECORDS_MAX} records are paused, and no more can be: resume some (lanekeeper parked paused), or pause their \
             target (lanekeeper target pause)"
        ))),
    }
}

/// Returns the pause that a resume would end.
///
/// # Errors
/// The record is not paused.
pub async fn check_resume_record(ledger: &AnyLedger, record_key: &RecordKey) -> Result<Pause, PauseError> {
    ledger.record_state(record_key).await?.paused.ok_or_else(|| not_paused(record_key.as_str()))
}

/// Resumes a record. See [`lanekeeper_ledger::Operations::resume_record`].
///
/// # Errors
/// It is not paused.
pub async fn resume_record(
    ledger: &AnyLedger,
    record_key: &RecordKey,
    operator_reason: &OperatorReason,
) -> Result<ResumedRecord, PauseError> {
    match ledger.resume_record(record_key, operator_reason).await? {
        Resumed::NotPaused => Err(not_paused(record_key.as_str())),
        Resumed::Done { updates, still_parked } => Ok(ResumedRecord { updates, still_parked }),
    }
}

fn already(what: &str, pause: &Pause) -> PauseError {
    PauseError::AlreadyPaused { what: printable(what), since: since(pause) }
}

fn not_paused(what: &str) -> PauseError {
    PauseError::NotPaused(printable(what))
}

fn target_not_paused(config: &Config, name: &str) -> PauseError {
    known(config, name).err().unwrap_or_else(|| not_paused(name))
}

fn known(config: &Config, name: &str) -> Result<(), PauseError> {
    if is_known(config, name) {
        return Ok(());
    }
    let known: Vec<&str> = config.targets.iter().map(|target| target.name.as_str()).collect();
    Err(PauseError::UnknownTarget(match known[..] {
        [] => format!("the config has no target {name:?}, and no other: give the config of the dispatchers"),
        _ => format!("the config has no target {name:?}; it has {}", known.join(", ")),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_said_with_its_reason_and_steers_no_terminal() {
        let check = |who: &str, why: &str, expected: &str| {
            let operator_reason = OperatorReason { who: who.to_owned(), why: why.to_owned() };
            assert_eq!(since(&Pause { since_ms: 7_000, operator_reason }), expected);
        };
        check("ada", "upgrade", "since 1970-01-01T00:00:07Z by ada: upgrade");
        check("ada", "", "since 1970-01-01T00:00:07Z by ada");
        check("a\nb", "\u{1b}[2J", "since 1970-01-01T00:00:07Z by a\\nb: \\u{1b}[2J");
    }
}
