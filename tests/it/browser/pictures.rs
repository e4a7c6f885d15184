//! Pictures of all pages, for people; and whether they fit.

use std::path::Path;

use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use serde_json::{Value, json};

use super::{EVIL, Pages, WRITE};
use crate::harness::{http, until};

/// A telephone and a desk.
const WIDTHS: [u32; 2] = [390, 1280];
/// What a person may have chosen for all programs.
const SCHEMES: [&str; 2] = ["light", "dark"];

impl Pages {
    /// Pictures at each width and in each scheme, with all forms open.
    async fn pictures(&self, name: &str, path: &str) {
        self.open(path).await;
        self.browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })").await;
        self.pictures_of_this(name, path).await;
    }

    async fn pictures_of_this(&self, name: &str, path: &str) {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&directory).expect("it can be made");
        for scheme in SCHEMES {
            self.browser.prefer(scheme).await;
            for width in WIDTHS {
                let file = directory.join(format!("{name}-{width}-{scheme}.png"));
                let fits = self.browser.picture(width, &file).await;
                assert!(fits, "{path} is wider than {width}: {}", file.display());
            }
        }
        self.not_owned().await;
    }

    /// Pictures of the page that asks again.
    async fn asked(&self, name: &str, path: &str, verb: &str) {
        self.open(path).await;
        self.browser.type_into(&format!("#{verb}-who"), "Ada Lovelace").await;
        self.browser.type_into(&format!("#{verb}-why"), "the upgrade is done").await;
        self.browser.click(&format!("form[action$='/{verb}'] button")).await;
        self.browser.reads("Do nothing and go back").await;
        self.pictures_of_this(name, path).await;
    }

    /// Publishes a report of a door, as whoever may write to the exchange could.
    async fn report_door(&self, process: &str) {
        let sender = |name: &str, is_hook: bool| {
            json!({
                "name": name, "is_hook": is_hook, "accepted": 120_000, "known": 12, "per_minute": 37, "pending": 3,
                "refused": { "no_key": 4, "unauthorized": 2 }, "last_failure": format!("422 no_key: {EVIL}"), "last_failure_ms": 1,
            })
        };
        let door = json!({
            "instance": format!("door {EVIL}"), "process": process, "version": "0.1.0", "pending": 6, "pending_max": 10_000,
            "accepted": 240_000, "known": 24, "refused": { "no_key": 8, "unauthorized": 4 }, "reconnects": 1,
            "senders": [sender("crm", false), sender(EVIL, true)],
        });
        let body = json!({ "form": 1, "door": door }).to_string();
        let (channel, exchange) = (self.world.channel().await, format!("{}.doors", self.world.exchange));
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        let publishing =
            channel.basic_publish(exchange.as_str().into(), "".into(), options, body.as_bytes(), properties);
        publishing.await.expect("it is published");
    }

    async fn change(&self, path: &str, body: &Value) {
        let request = http().post(format!("{}{path}", self.base)).bearer_auth(WRITE);
        let request = request.header("content-type", "application/json").body(body.to_string());
        let answer = request.send().await.expect("it answers");
        assert_eq!(answer.status(), 200, "{path}: {body}");
    }
}

/// They are in `target/tmp/pages`.
#[tokio::test(flavor = "multi_thread")]
async fn every_page_fits_a_telephone_and_a_desk() {
    let long = format!("customer-{}", "x".repeat(200));
    let records = ["customer-20", long.as_str()];
    let pages = Pages::begin("browser-pages", &records).await;
    pages.park(&records).await;
    pages.world.publish((1..200).map(|number| {
        json!({ "key": format!("other-{}", number % 7), "id": format!("o-{number}"), "type": "order.created", "body": { "sequence": 1 + number / 7 } })
    }).collect::<Vec<Value>>()).await;
    pages.log_in(WRITE).await;
    pages.browser.reads("may change").await;
    let record = format!("/record?key={long}");
    let parked_record = format!("/parked/record?key={long}");
    for (name, path) in [
        ("overview", "/"),
        ("partition", "/partition?layout=1&partition=0"),
        ("record", &record),
        ("target", "/target?name=receiver"),
        ("parked", "/parked"),
        ("parked-record", &parked_record),
        ("not-parked-record", "/parked/record?key=other-1"),
        ("releasing", "/parked/releasing"),
        ("paused-none", "/paused"),
        ("updates", "/updates?id=customer-20-1"),
        ("login", "/login"),
        ("problem", "/nothing"),
    ] {
        pages.pictures(name, path).await;
    }
    pages.report_door("a & b").await;
    until("the door is shown", || async {
        pages.open("/").await;
        let text = pages.browser.run("return document.querySelector('main').innerText").await.to_string();
        if text.contains("Doors") { Ok(()) } else { Err(text) }
    })
    .await;
    for (name, path) in [("overview-doors", "/"), ("door", "/door?process=a%20%26%20b")] {
        pages.pictures(name, path).await;
    }
    pages.browser.reads("Clients and hooks").await;
    let (who, why) = ("Ada Lovelace", format!("upgrade to 7.2 {EVIL} {}", "x".repeat(200)));
    pages.change("/api/target/pause", &json!({ "name": "receiver", "who": who, "why": why })).await;
    for key in [long.as_str(), "other-1"] {
        pages.change("/api/record/pause", &json!({ "key": key, "who": who, "why": why })).await;
    }
    pages.open("/").await;
    pages.browser.reads("Target receiver is paused").await;
    for (name, path) in [
        ("overview-paused", "/"),
        ("record-paused", &record),
        ("target-paused", "/target?name=receiver"),
        ("parked-paused", "/parked"),
        ("parked-record-paused", &parked_record),
        ("paused", "/paused"),
        ("changes", "/changes"),
    ] {
        pages.pictures(name, path).await;
    }
    pages.asked("asked-resume", "/target?name=receiver", "resume").await;
}
