//! How processes show each other by their admin ports that they hold the same read token, which is not sent: the URL comes from a
//! note that others could have written. A question is signed for the URL that it goes to, so that nobody passes it on; its answer
//! is signed with the question.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use lanekeeper_core::secret::Secret;

/// The header of both: `t=SECONDS,v1=HMAC` with a question, `v1=HMAC` with an answer.
pub const SIGNATURE: &str = "lanekeeper-inquiry-signature";
/// How far the clocks of two hosts may differ.
const TOLERANCE: Duration = Duration::from_secs(300);
/// What the keys are made for.
const PURPOSE: &[u8] = b"lanekeeper inquiry 1";

/// Signs and checks with one read token.
#[derive(Debug)]
pub struct InquiryKey(hmac::Key);

impl InquiryKey {
    /// Of this token.
    #[must_use]
    pub fn new(read_token: &Secret) -> Self {
        let token = hmac::Key::new(hmac::HMAC_SHA256, read_token.reveal().as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&token, PURPOSE).as_ref()))
    }

    /// Signs a question to this URL.
    #[must_use]
    pub fn sign_question(&self, url: &str, question: &[u8], now: SystemTime) -> String {
        let seconds = seconds(now);
        let tag = hmac::sign(&self.0, &parts(&["question", &seconds.to_string(), url], question));
        format!("t={seconds},v1={}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Returns true if who holds the token has signed the question for this URL not long ago.
    #[must_use]
    pub fn is_question(&self, url: &str, question: &[u8], signature: &str, now: SystemTime) -> bool {
        let both = signature.strip_prefix("t=").and_then(|rest| rest.split_once(",v1="));
        let Some((at, tag)) = both else { return false };
        let (Ok(at), Ok(tag)) = (at.parse::<u64>(), URL_SAFE_NO_PAD.decode(tag)) else { return false };
        let signed = parts(&["question", &at.to_string(), url], question);
        seconds(now).abs_diff(at) <= TOLERANCE.as_secs() && hmac::verify(&self.0, &signed, &tag).is_ok()
    }

    /// Signs the answer to the question with this signature.
    #[must_use]
    pub fn sign_answer(&self, question_signature: &str, answer: &[u8]) -> String {
        let tag = hmac::sign(&self.0, &parts(&["answer", question_signature], answer));
        format!("v1={}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Returns true if who holds the token has answered this to the question.
    #[must_use]
    pub fn is_answer(&self, question_signature: &str, answer: &[u8], signature: &str) -> bool {
        let tag = signature.strip_prefix("v1=").and_then(|tag| URL_SAFE_NO_PAD.decode(tag).ok());
        let signed = parts(&["answer", question_signature], answer);
        tag.is_some_and(|tag| hmac::verify(&self.0, &signed, &tag).is_ok())
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// None of the parts has a line end.
fn parts(parts: &[&str], body: &[u8]) -> Vec<u8> {
    let mut signed = parts.join("\n").into_bytes();
    signed.push(b'\n');
    signed.extend_from_slice(body);
    signed
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://a:9419";

    fn keys() -> [InquiryKey; 2] {
        ["0123456789abcdef", "0123456789abcdeF"].map(|token| InquiryKey::new(&Secret::new(token)))
    }

    #[test]
    fn only_who_holds_the_token_has_signed_this_question_for_this_port_and_not_long_ago() {
        let [key, other] = keys();
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let signature = key.sign_question(URL, b"question", now);
        let (early, late) = (now - Duration::from_secs(300), now + Duration::from_secs(300));
        assert!([early, now, late].iter().all(|now| key.is_question(URL, b"question", &signature, *now)));
        assert!(!other.is_question(URL, b"question", &signature, now));
        assert!(!key.is_question(URL, b"Question", &signature, now));
        assert!(!key.is_question("http://b:9419", b"question", &signature, now));
        assert!(!key.is_question(URL, b"question", &signature, late + Duration::from_secs(1)));
        let later = signature.replace("t=17", "t=18");
        for wrong in ["", "t=1,v1=", "v1=AAAA", "t=,v1=AAAA", "t=1700000000,v1=!", later.as_str()] {
            assert!(!key.is_question(URL, b"question", wrong, now), "{wrong}");
        }
    }

    #[test]
    fn an_answer_belongs_to_its_question() {
        let [key, other] = keys();
        let signature = key.sign_answer("t=1,v1=AA", b"answer");
        assert!(key.is_answer("t=1,v1=AA", b"answer", &signature));
        assert!(!key.is_answer("t=2,v1=AA", b"answer", &signature));
        assert!(!key.is_answer("t=1,v1=AA", b"Answer", &signature));
        assert!(!other.is_answer("t=1,v1=AA", b"answer", &signature));
        assert!(!key.is_answer("t=1,v1=AA", b"answer", ""));
    }
}
