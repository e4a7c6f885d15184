//! The pages in a real browser. Judged by what a person reads there, and by what the receiver saw.

mod pauses;
mod pictures;
mod webdriver;

use std::time::{Duration, Instant};

use lanekeeper_lab::receiver::{FailingRecord, ReceiverSettings};
use serde_json::{Value, json};

use self::webdriver::Browser;
use crate::harness::{Dispatcher, World, http, until};

const WRITE: &str = "write-token-of-the-browser-tests";
/// How long the receiver rejects the first records.
const REJECTED: Duration = Duration::from_secs(3);
/// An update with markup wherever a publisher can put it.
const EVIL: &str =
    "<script>document.title = 'owned'</script><img src=x onerror=\"document.title = 'owned'\">";

struct Pages {
    world: World,
    _dispatcher: Dispatcher,
    browser: Browser,
    base: String,
}

impl Pages {
    /// `records` are rejected for [`REJECTED`], each from its first request on.
    async fn begin(name: &str, records: &[&str]) -> Self {
        let failing = |record: &&str| format!("{record}=422:{}s", REJECTED.as_secs());
        let failing: Vec<FailingRecord> =
            records.iter().map(|record| failing(record).parse().expect("a failing record")).collect();
        let settings = ReceiverSettings { fail_records: failing, ..ReceiverSettings::default() };
        let world = World::with(name, settings).await;
        let extra = format!("{}updates.partitions = 2\nadmin.write_token = \"{WRITE}\"\n", world.ledger());
        let dispatcher = world.dispatcher(&extra).await;
        let base = format!("http://{}", dispatcher.admin().await);
        Self { world, _dispatcher: dispatcher, browser: Browser::start().await, base }
    }

    async fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.base)).await;
    }

    /// Publishes one update of each record, which is parked.
    async fn park(&self, records: &[&str]) {
        let updates = records.iter().map(|record| {
            json!({ "key": record, "id": format!("{record}-1"), "type": EVIL, "body": { "sequence": 1, "name": EVIL } })
        });
        self.world.publish(updates.collect::<Vec<Value>>()).await;
        self.parked(records.len()).await;
    }

    async fn parked(&self, records: usize) {
        until(&format!("{records} parked records"), || async {
            let answer = http().get(format!("{}/api/parked", self.base)).send().await;
            let text = answer.map_err(|error| error.to_string())?.text().await.unwrap_or_default();
            let found: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
            let waiting =
                found["records"].as_array().into_iter().flatten().filter(|it| it["state"] == "parked");
            if waiting.count() == records { Ok(()) } else { Err(text) }
        })
        .await;
    }

    async fn log_in(&self, token: &str) {
        self.open("/login").await;
        self.browser.type_into("#token", token).await;
        self.browser.click("form[action='/login'] button").await;
    }

    async fn not_owned(&self) {
        assert_ne!(self.browser.run("return document.title").await, json!("owned"));
        assert_eq!(
            self.browser.run("return document.querySelectorAll('main script, main img').length").await,
            json!(0)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_record_is_found_read_released_and_seen_to_arrive() {
    let pages = Pages::begin("browser-release", &["customer-17"]).await;
    let (browser, rejected_from) = (&pages.browser, Instant::now());
    pages.park(&["customer-17"]).await;
    pages.log_in(WRITE).await;
    browser.reads("may change").await;
    pages.open("/parked").await;
    browser.type_into("#contains", "customer").await;
    browser.click("form.filters button").await;
    browser.click("a[href='/parked/record?key=customer%2D17']").await;
    // The body as it was published: markup is text.
    browser.reads(EVIL).await;
    pages.not_owned().await;
    until("the end of the rejections", || async {
        if rejected_from.elapsed() > REJECTED + Duration::from_secs(1) {
            Ok(())
        } else {
            Err("not yet".to_owned())
        }
    })
    .await;
    browser.click("details summary").await;
    browser.type_into("#release-who", "Ada").await;
    browser.type_into("#release-why", "the country is known now").await;
    browser.click("form[action='/parked/release'] button").await;
    browser.reads("Release this record?").await;
    browser.reads("the country is known now").await;
    assert_eq!(
        pages.world.receiver.record("customer-17").expect("it was sent").counts.updates,
        0,
        "asked again first"
    );
    browser.click("form[action='/parked/release'] button").await;
    browser.reads("Released.").await;
    pages.world.applied(1).await;
    pages.parked(0).await;
    pages.open("/updates?id=customer-17-1").await;
    browser.reads("applied by the target").await;
    pages.open("/changes").await;
    browser.reads("the country is known now").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new(), "the policy lets all of the pages pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_a_form_of_another_page_do_nothing() {
    let pages = Pages::begin("browser-forged", &["customer-18"]).await;
    let browser = &pages.browser;
    pages.park(&["customer-18"]).await;
    pages.log_in("write-token-that-is-wrong").await;
    browser.reads("the token is wrong").await;
    pages.open("/parked/record?key=customer-18").await;
    browser.reads("log in with admin.write_token").await;
    pages.log_in(WRITE).await;
    browser.reads("may change").await;
    // A page on another port of this host: the browser sends the cookie with its form.
    for place in [format!("{}/report", pages.world.target), "about:blank".to_owned()] {
        browser.open(&place).await;
        let form = format!(
            "const form = document.createElement('form'); form.method = 'post'; form.action = '{}/parked/discard';
             for (const [name, value] of Object.entries({{ key: 'customer-18', head: 'all', who: 'Mallory', why: 'x',
                 confirmed: 'yes', form_token: 'AAAA' }})) {{
                 const field = document.createElement('input'); field.name = name; field.value = value; form.append(field);
             }}
             document.documentElement.append(form); form.submit();",
            pages.base
        );
        browser.run(&form).await;
        browser.reads("does not come from a page of this port").await;
    }
    pages.parked(1).await;
    pages.open("/changes").await;
    browser.reads("There is none.").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_shows_changes_without_being_loaded_again() {
    let pages = Pages::begin("browser-live", &["customer-19"]).await;
    let browser = &pages.browser;
    pages.open("/").await;
    browser.reads("Live").await;
    browser.reads("nothing is parked").await;
    browser.run("window.loaded = 'once'").await;
    pages.park(&["customer-19"]).await;
    browser.reads("1 parked record").await;
    assert_eq!(browser.run("return window.loaded").await, json!("once"));
    assert_eq!(browser.complaints().await, Vec::<String>::new());
}
