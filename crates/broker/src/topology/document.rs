//! The layout document: which layouts there are. The last one in the topology stream counts.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::clock::seconds_since_1970;
use crate::error::SourceError;
use lanekeeper_core::change::Layouts;
use lanekeeper_core::numbering::EPOCH_MAX;

/// Version of the document's form that this program writes as long as the epoch is 0, which older programs can follow.
const DOCUMENT_VERSION: u32 = 3;
/// The first version with an epoch: an older program would give lower numbers to its tenures.
const WITH_EPOCH: u32 = 4;
/// The oldest version that it reads: the one before witnesses.
const DOCUMENT_VERSION_MIN: u32 = 1;
/// The first version with witnesses.
const WITH_WITNESSES: u32 = 2;

/// The current layout, those that drain or are being made, and who changed them last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutDocument {
    /// Form of the document, `WITH_EPOCH` or an older one. A newer one is refused, not guessed at.
    pub version: u32,
    /// Grows by one with every document of the stream; 0 before version 3.
    #[serde(default)]
    pub serial: u64,
    /// Which layouts there are. Version 1 has no witnesses; before version 3 there is one layout alone.
    #[serde(flatten)]
    pub layouts: Layouts,
    /// The newest epoch of tenure numbers; 0 before version 4.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub epoch: u64,
    /// Identity of this topology, for the ledger; `None`: no ledger has been used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<Uuid>,
    /// Identity of the ledger that belongs to this exchange; `None`: none has been used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger: Option<Uuid>,
    /// Written at the last start, here and into the ledger: a ledger without it is a copy. `None`: not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_mark: Option<Uuid>,
    /// Who wrote it: the instance's name.
    pub changed_by: String,
    /// When, in seconds since 1970-01-01 UTC, by that instance's clock.
    pub changed_at: u64,
}

impl LayoutDocument {
    /// The first one of an exchange, not written yet.
    pub(crate) fn first(layouts: Layouts) -> Self {
        Self {
            version: DOCUMENT_VERSION,
            serial: 0,
            layouts,
            epoch: 0,
            identity: None,
            ledger: None,
            ledger_mark: None,
            changed_by: String::new(),
            changed_at: 0,
        }
    }

    /// The document that follows the one that this was made from, as changed now by this instance.
    pub(crate) fn succeeding(self, instance: &str) -> Self {
        Self {
            version: if self.epoch > 0 { WITH_EPOCH } else { DOCUMENT_VERSION },
            serial: self.serial + 1,
            changed_by: instance.to_owned(),
            changed_at: seconds_since_1970(),
            ..self
        }
    }
}

/// Reads a document. `stream`, for the errors.
///
/// # Errors
/// [`SourceError::Document`]: it is not one that this version can read.
pub(crate) fn parse(body: &[u8], stream: &str) -> Result<LayoutDocument, SourceError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let fault = |fault: String| SourceError::Document { stream: stream.to_owned(), fault };
    let Versioned { version } = serde_json::from_slice(body).map_err(|error| fault(error.to_string()))?;
    if !(DOCUMENT_VERSION_MIN..=WITH_EPOCH).contains(&version) {
        return Err(fault(format!(
            "its version is {version}, this program reads {DOCUMENT_VERSION_MIN} to {WITH_EPOCH}; run the program that wrote it, or a newer one"
        )));
    }
    let document: LayoutDocument = serde_json::from_slice(body).map_err(|error| fault(error.to_string()))?;
    match unfit(&document) {
        Some(what) => Err(fault(what)),
        None => Ok(document),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What no document can be like.
fn unfit(document: &LayoutDocument) -> Option<String> {
    if document.epoch > EPOCH_MAX {
        return Some(format!("its epoch is {}, it must be at most {EPOCH_MAX}", document.epoch));
    }
    let without = document.version >= WITH_WITNESSES && document.layouts.witnesses.is_empty();
    document.layouts.unfit().or_else(|| {
        without.then(|| format!("it has no witnesses, which version {} must have", document.version))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expected: Result<usize, &str>) {
        match (parse(body.as_bytes(), "updates.topology"), expected) {
            (Ok(document), Ok(witnesses)) => {
                assert_eq!(document.layouts.witnesses.len(), witnesses, "{body}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{body}: {error}"),
            (found, _) => panic!("{body}: {found:?}, expected {expected:?}"),
        }
    }

    fn document(version: u32, layout: &str, witnesses: &str) -> String {
        format!(
            r#"{{"version":{version},"in_force":{layout},"changed_by":"a","changed_at":1767225600{witnesses}}}"#
        )
    }

    #[test]
    fn a_document_is_read_or_refused_with_what_is_wrong() {
        const LAYOUT: &str = r#"{"number":1,"partitions":8,"prefetch":1000}"#;
        const WITNESS: &str = r#","witnesses":[{"key":"w","partition":7}]"#;
        check(&document(1, LAYOUT, ""), Ok(0));
        check(&document(2, LAYOUT, WITNESS), Ok(1));
        check(&document(2, LAYOUT, ""), Err("no witnesses"));
        check(&document(2, LAYOUT, &WITNESS.replace('7', "8")), Err("witness w is in p008"));
        check(&document(3, LAYOUT, WITNESS), Ok(1));
        check(&document(4, LAYOUT, &format!(r#"{WITNESS},"epoch":490000"#)), Ok(1));
        for (version, fault) in [(0, "version is 0"), (5, "version is 5")] {
            check(&document(version, LAYOUT, WITNESS), Err(fault));
        }
        let layout = |from: &str, to: &str| document(2, &LAYOUT.replace(from, to), WITNESS);
        check(&layout(":8", ":0"), Err("partitions is 0, it must be 1 to 1024"));
        check(&layout(":8", ":1025"), Err("partitions is 1025"));
        check(&layout(":8", ":-1"), Err("invalid value"));
        check(&layout("1000", "0"), Err("prefetch is 0"));
        check(&layout("\"number\":1", "\"number\":0"), Err("number is 0"));
        check(&layout("8", "\"8\""), Err("invalid type"));
        check("{}", Err("version"));
        check("no JSON", Err("expected"));
    }
}
