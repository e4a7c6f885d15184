//! A target and a record are paused and resumed on the pages.

use serde_json::{Value, json};

use super::{Pages, WRITE};
use crate::harness::lanekeeper;

impl Pages {
    async fn publish(&self, key: &str, sequence: u64) {
        let update =
            json!({ "key": key, "id": format!("{key}-{sequence}"), "body": { "sequence": sequence } });
        self.world.publish(vec![update]).await;
    }

    /// Requests that the receiver has got for the record.
    fn requests(&self, key: &str) -> u64 {
        self.world.receiver.record(key).map_or(0, |record| record.counts.requests)
    }

    /// What `lanekeeper why` says.
    async fn why(&self, key: &str) -> Value {
        let config = self.world.dir.path().join("lanekeeper.toml");
        let config = config.to_str().expect("temporary directories have plain names").to_owned();
        let key = key.to_owned();
        let asking = move || lanekeeper(&["why", &key, "--json", "--config", &config], &[], b"");
        let output = tokio::task::spawn_blocking(asking).await.expect("it does not panic");
        serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", output.stderr))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_is_paused_on_its_page_and_its_updates_wait_until_it_is_resumed_there() {
    let pages = Pages::begin("browser-pause-target", &[]).await;
    let browser = &pages.browser;
    pages.open("/target?name=receiver").await;
    browser.reads("log in with admin.write_token").await;
    pages.log_in(WRITE).await;
    browser.reads("may change").await;
    pages.open("/").await;
    browser.click("a[href='/target?name=receiver']").await;
    browser.click("details summary").await;
    browser.type_into("#pause-who", "Ada").await;
    browser.type_into("#pause-why", "<b>upgrade to 7.2").await;
    browser.click("form[action='/target/pause'] button").await;
    browser.reads("Pause this target?").await;
    browser.reads("<b>upgrade to 7.2").await;
    browser.click("form[action='/target/pause'] button").await;
    browser.reads("by Ada: <b>upgrade to 7.2").await;
    // The overview follows.
    pages.open("/").await;
    browser.reads("Target receiver is paused (Ada: <b>upgrade to 7.2)").await;
    pages.publish("customer-21", 1).await;
    browser.reads("The oldest update of").await;
    pages.open("/record?key=customer-21").await;
    browser.reads("A person has paused target receiver").await;
    assert_eq!(pages.why("customer-21").await["wait"]["cause"]["code"], json!("target_paused"));
    pages.open("/paused").await;
    browser.reads("<b>upgrade to 7.2").await;
    assert_eq!(pages.requests("customer-21"), 0, "nothing is sent to a paused target");
    browser.click("a[href='/target?name=receiver']").await;
    browser.type_into("#resume-who", "Grace").await;
    browser.type_into("#resume-why", "done").await;
    browser.click("form[action='/target/resume'] button").await;
    browser.reads("Resume this target?").await;
    assert_eq!(pages.requests("customer-21"), 0, "asked again first");
    browser.click("form[action='/target/resume'] button").await;
    browser.reads("Resumed.").await;
    pages.world.applied(1).await;
    pages.open("/changes").await;
    browser.reads("pause target").await;
    browser.reads("resume target").await;
    pages.not_owned().await;
    assert_eq!(browser.complaints().await, Vec::<String>::new(), "the policy lets all of the pages pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_is_paused_and_resumed_without_a_mouse_and_without_scripts() {
    let pages = Pages::begin("browser-pause-record", &[]).await;
    let browser = &pages.browser;
    browser.without_scripts().await;
    pages.log_in(WRITE).await;
    browser.reads("may change").await;
    pages.open("/record?key=customer-22").await;
    browser.press_enter("details summary").await;
    browser.type_into("#pause-who", "Ada").await;
    browser.type_into("#pause-why", "merged by hand").await;
    browser.press_enter("form[action='/record/pause'] button").await;
    browser.reads("Pause this record?").await;
    browser.press_enter("form[action='/record/pause'] button").await;
    browser.reads("Paused. A request that is out ends").await;
    pages.publish("customer-22", 1).await;
    pages.publish("customer-23", 1).await;
    pages.world.applied(1).await;
    pages.parked(1).await;
    pages.open("/record?key=customer-22").await;
    browser.reads("A person has paused the record (Ada: merged by hand)").await;
    assert_eq!(pages.why("customer-22").await["wait"]["cause"]["code"], json!("record_paused"));
    pages.open("/parked").await;
    browser.reads("paused by a person").await;
    browser.press_enter("main a[href='/paused']").await;
    browser.reads("merged by hand").await;
    browser.press_enter("a[href='/parked/record?key=customer%2D22']").await;
    browser.reads("Its updates are parked as they come").await;
    assert_eq!(pages.requests("customer-22"), 0, "nothing of a paused record is sent");
    browser.type_into("#resume-who", "Grace").await;
    browser.type_into("#resume-why", "checked").await;
    browser.press_enter("form[action='/record/resume'] button").await;
    browser.reads("Resume this record?").await;
    browser.press_enter("form[action='/record/resume'] button").await;
    browser.reads("Resumed.").await;
    pages.world.applied(2).await;
    pages.open("/changes?key=customer-22").await;
    browser.reads("resume record").await;
}
