//! One safeguard of the API against races: what goes wrong without it, and that nothing does with it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::ApiSafeguard;
use super::console::{Console, Paint, count, number, paint};
use super::error::DemoError;
use super::race::{self, Outcome, Race, TOTAL, adding, price, price_body};
use super::safeguard_proof::SafeguardProof;
use super::stage::Stage;
use super::writer::{Habit, ScheduledWrite, WriterAction};
use crate::command::Exit;
use crate::receiver::{ReceiverSettings, Safeguard, Safeguards, StoreAddress};

/// The variable with the URL of a PostgreSQL for demonstrations, if there is one.
const POSTGRES_VARIABLE: &str = "LANEKEEPER_POSTGRES_URL";
/// Customers, and how often each is changed through Lanekeeper.
const RECORDS: u64 = 20;
const UPDATES: u64 = 10;
/// Between two updates of one customer.
const PACE: Duration = Duration::from_millis(60);
/// Products, and versions of each. The second writer sets the last one, at this time.
const PRODUCTS: u64 = 10;
const VERSIONS: i64 = 8;
const NEWEST_AFTER: Duration = Duration::from_millis(200);
/// Time that a request takes, on average.
const LATENCY: Duration = Duration::from_millis(4);
/// Time between reading and writing at the API.
const THINK: Duration = Duration::from_millis(2);
/// Share of requests that are applied, and whose answer is lost.
const LOST_ANSWERS: f64 = 0.25;

/// Runs both halves, and prints the proof.
pub(super) async fn story(
    safeguard: ApiSafeguard,
    store: Option<&StoreAddress>,
    seed: u64,
    stage: &mut Stage,
    console: &Console,
) -> Result<Exit, DemoError> {
    let [first, second] = headings(safeguard);
    introduce(safeguard, console);
    let store = match (store, safeguard) {
        (Some(store), _) => store.clone(),
        (None, ApiSafeguard::RowLocks) => database(stage),
        (None, _) => StoreAddress::Memory,
    };
    if safeguard == ApiSafeguard::RowLocks {
        console.say(&format!("Its records are in {store}."));
    }
    let race = |half| Race { store: store.clone(), ..race_of(safeguard, half, seed) };

    console.heading(&format!("1. {first}"));
    let without = race::run(race(Half::Without), stage, console).await?;
    print_wrong(&without, console);
    console.heading(&format!("2. {second}"));
    let with = race::run(race(Half::With), stage, console).await?;
    print_wrong(&with, console);

    console.heading("The proof: what the API has in the end");
    let proof = SafeguardProof { safeguard, without: &without, with: &with };
    proof.print(console);
    console.say("");
    let faults = proof.faults();
    if faults.is_empty() {
        console.say(&format!("{} {}", paint(Paint::Good, "The proof holds."), moral(safeguard)));
        console.say("Next: docs/receiving.md has the SQL of it, and what to check in which order.");
        return Ok(Exit::Done);
    }
    console.say("The proof does NOT hold:");
    for fault in faults {
        console.say(&format!("  {fault}"));
    }
    Ok(Exit::Other)
}

/// A database, for row locks: the PostgreSQL that `scripts/postgres` has started, else an SQLite file.
fn database(stage: &Stage) -> StoreAddress {
    let server = std::env::var(POSTGRES_VARIABLE).ok().filter(|url| !url.is_empty());
    server.map_or_else(|| StoreAddress::Sqlite(stage.file("api.db")), StoreAddress::Postgres)
}

/// Which half of a story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Half {
    Without,
    With,
}

fn introduce(safeguard: ApiSafeguard, console: &Console) {
    let (customers, updates) = (count(RECORDS, "customer"), count(RECORDS * UPDATES, "update"));
    let collect =
        format!("{customers} collect points: {updates} come through Lanekeeper, and each adds some.");
    let lines = match safeguard {
        ApiSafeguard::Idempotency => [
            collect,
            "For one request in four the API applies the update and the answer is lost: it is a 500, or the"
                .to_owned(),
            "connection is closed. The sender cannot know that, and has to send the update again.".to_owned(),
        ],
        ApiSafeguard::Versions => [
            collect,
            "A clerk changes the same customers without it: reads one, looks at it, and writes it back."
                .to_owned(),
            format!(
                "And {} get a new price without Lanekeeper while older prices are still on their way.",
                count(PRODUCTS, "product")
            ),
        ],
        ApiSafeguard::RowLocks => [
            collect,
            "A shop sends as many straight to the API, at the same time. To add, the API reads the customer,"
                .to_owned(),
            format!("thinks for {} ms, and writes the sum.", THINK.as_millis()),
        ],
    };
    for line in lines {
        console.say(&line);
    }
}

fn headings(safeguard: ApiSafeguard) -> [&'static str; 2] {
    match safeguard {
        ApiSafeguard::Idempotency => [
            "Without: the API ignores the Idempotency-Key",
            "With: it stores the key with the change, in one transaction",
        ],
        ApiSafeguard::Versions => [
            "Without: nobody says which version they change",
            "With: the clerk sends If-Match, prices have a record-version, and the API checks both",
        ],
        ApiSafeguard::RowLocks => [
            "Without: the API reads and writes without a lock",
            "With: it locks the record from reading to writing",
        ],
    }
}

fn moral(safeguard: ApiSafeguard) -> &'static str {
    match safeguard {
        ApiSafeguard::Idempotency => {
            "Lanekeeper sent the same key with every repeat, and the API recognized it."
        }
        ApiSafeguard::Versions => {
            "Changes of an outdated version were refused, and made again on the present one."
        }
        ApiSafeguard::RowLocks => "Each change waited a moment for the other one, and saw its result.",
    }
}

fn race_of(safeguard: ApiSafeguard, half: Half, seed: u64) -> Race {
    let label = if half == Half::Without { "without" } else { "with" };
    let mut race = Race {
        settings: settings(safeguard, half, seed),
        store: StoreAddress::Memory,
        updates: Vec::new(),
        writes: Vec::new(),
        expected: BTreeMap::new(),
    };
    let habit = match (safeguard, half) {
        (ApiSafeguard::Idempotency, _) => None,
        (ApiSafeguard::RowLocks, _) => Some(Habit::Adds),
        (ApiSafeguard::Versions, Half::Without) => Some(Habit::ReadsAndWrites),
        (ApiSafeguard::Versions, Half::With) => Some(Habit::ReadsAndWritesIfUnchanged),
    };
    for sequence in 1..=UPDATES {
        for record in 1..=RECORDS {
            let due = PACE.mul_f64((sequence - 1) as f64 + (record - 1) as f64 / RECORDS as f64);
            let add = i64::try_from((record * 7 + sequence * 3 + seed) % 9 + 1).expect("it is small");
            let update = adding(label, record, sequence, due, add);
            let record_key = update.record_key.as_str().to_owned();
            race.expected.entry(record_key.clone()).or_insert((TOTAL, 0)).1 += add;
            race.updates.push(update);
            if let Some(habit) = habit {
                race.expected.entry(record_key.clone()).or_insert((TOTAL, 0)).1 += 1;
                race.writes.push(ScheduledWrite { due, record_key, what: WriterAction::OneMore(habit) });
            }
        }
    }
    if safeguard == ApiSafeguard::Versions {
        add_prices(&mut race, label);
    }
    race
}

/// The second writer sets the newest version of each product, before some of the older ones arrive.
fn add_prices(race: &mut Race, label: &str) {
    for product in 1..=PRODUCTS {
        let record_key = format!("product-{product}");
        for (version, step) in (1..VERSIONS).zip(0_u32..) {
            race.updates.push(price(label, product, version, PACE * step));
        }
        let what = WriterAction::Version(VERSIONS, price_body(VERSIONS));
        race.writes.push(ScheduledWrite { due: NEWEST_AFTER, record_key: record_key.clone(), what });
        race.expected.insert(record_key, ("version", VERSIONS));
    }
    race.updates.sort_by_key(|update| update.due);
}

fn settings(safeguard: ApiSafeguard, half: Half, seed: u64) -> ReceiverSettings {
    let without = match safeguard {
        ApiSafeguard::Idempotency => Safeguard::Idempotency,
        ApiSafeguard::Versions => Safeguard::Versions,
        ApiSafeguard::RowLocks => Safeguard::RowLocks,
    };
    let usual = ReceiverSettings {
        latency: LATENCY,
        latency_jitter: 0.5,
        safeguards: if half == Half::With { Safeguards::ALL } else { Safeguards::ALL.without(without) },
        seed,
        ..ReceiverSettings::default()
    };
    match safeguard {
        ApiSafeguard::Idempotency => ReceiverSettings {
            fail_share: LOST_ANSWERS,
            fail_with: ["applied-then-500", "applied-then-cut"]
                .map(|fault| fault.parse().expect("it is a fault"))
                .to_vec(),
            ..usual
        },
        ApiSafeguard::Versions => usual,
        ApiSafeguard::RowLocks => ReceiverSettings { think: THINK, ..usual },
    }
}

fn print_wrong(outcome: &Outcome, console: &Console) {
    let Some(wrong) = outcome.wrong.first() else {
        console.detail("Every record has the value that it should have.");
        return;
    };
    console.detail(&format!(
        "{} have a wrong value now, and keep it.",
        count(outcome.wrong.len() as u64, "record")
    ));
    for wrong in
        [Some(wrong), outcome.wrong.last().filter(|last| last.member != wrong.member)].into_iter().flatten()
    {
        let (key, expected) = (&wrong.record_key, number(wrong.expected.unsigned_abs()));
        let found = number(wrong.found.unsigned_abs());
        let line = match wrong.member {
            TOTAL => format!("{key}: expected {expected} points, got {found}"),
            member => format!("{key}: expected {member} {expected}, got {member} {found}"),
        };
        console.detail(&line);
    }
}
