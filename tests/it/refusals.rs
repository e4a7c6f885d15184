//! A broker that refuses or blocks us, while running and at the start: what is said, what heals, what ends.

use std::sync::Arc;

use lanekeeper_lab::receiver::ReceiverSettings;
use lapin::options::QueueDeleteOptions;

use crate::harness::{Broker, Dispatcher, World, assert_flawless, http, until, updates};

async fn ctl(broker: &Arc<Broker>, arguments: &[&str]) {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let broker = Arc::clone(broker);
    let running = move || drop(broker.ctl(&arguments.iter().map(String::as_str).collect::<Vec<_>>()));
    tokio::task::spawn_blocking(running).await.expect("it does not panic");
}

pub async fn set_alarm(broker: &Arc<Broker>, on: bool) {
    ctl(broker, &["set_vm_memory_high_watermark", if on { "0.0000001" } else { "0.6" }]).await;
}

/// A user of the test's own, who may do what is documented.
struct User<'a> {
    broker: &'a Arc<Broker>,
    name: &'static str,
    exchange: &'static str,
}

impl User<'_> {
    async fn add(&self) {
        ctl(self.broker, &["add_user", self.name, "right"]).await;
        self.permit().await;
    }

    async fn permit(&self) {
        let own = format!("^{}(\\..*)?$", self.exchange);
        let write = format!("^({}(\\..*)?|amq\\.default)$", self.exchange);
        ctl(self.broker, &["set_permissions", self.name, &own, &write, &own]).await;
    }

    async fn forbid(&self) {
        ctl(self.broker, &["set_permissions", self.name, "^$", "^$", "^$"]).await;
    }

    /// As an outage would.
    async fn close_connections(&self) {
        ctl(self.broker, &["close_all_user_connections", self.name, "by hand"]).await;
    }

    fn config(&self, world: &World) -> String {
        let config = world.config("updates.partitions = 2");
        config.replace("guest:guest@", &format!("{}:right@", self.name))
    }
}

async fn unready(dispatcher: &Dispatcher) -> String {
    let url = format!("http://{}/readyz", dispatcher.admin().await);
    until("a dispatcher that is not ready", || async {
        let answer = http().get(&url).send().await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Err("ready".to_owned()) } else { Ok(answer.text().await.unwrap()) }
    })
    .await
}

fn lines(dispatcher: &Dispatcher, text: &str) -> usize {
    dispatcher.log().iter().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_holds_up_dead_letters_and_their_records_and_nothing_else() {
    let broker = Arc::new(Broker::start());
    let fail_records = vec!["record-0=422:1ms".parse().expect("a failing record")];
    let settings = ReceiverSettings { fail_records, ..ReceiverSettings::default() };
    let world = World::on(Arc::clone(&broker), "updates", settings).await;
    let mut first = world.dispatcher("updates.partitions = 2").await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    world.publish(updates(20, 10)).await;
    set_alarm(&broker, true).await;
    let dispatcher = world.dispatcher("updates.partitions = 2").await;
    dispatcher.logged("the broker blocks publishing").await;
    dispatcher.logged("partition owned without a tenure number").await;
    // 19 records flow and are settled; one waits for its letter.
    world.applied(190).await;
    until("all but one record to be settled", || async {
        match dispatcher.metric("lanekeeper_held").await {
            held if held < 10.5 => Ok(()),
            held => Err(format!("{held} held")),
        }
    })
    .await;
    assert_eq!(world.receiver.report(0).counts.updates, 190);
    assert_eq!(world.waiting(&world.channel().await, "dead").await, 0);
    set_alarm(&broker, false).await;
    dispatcher.logged("the broker accepts publishes again").await;
    dispatcher.logged("partition owned partition=").await;
    let report = world.applied(199).await;
    assert_eq!(report.counts.reorders, 0, "{}", report.counts);
    assert_eq!(report.counts.duplicates, 0, "{}", report.counts);
    assert_eq!(world.waiting(&world.channel().await, "dead").await, 1);
}

/// It can mark neither the ledger nor the layout document then.
#[tokio::test(flavor = "multi_thread")]
async fn under_an_alarm_dispatchers_with_a_ledger_start_and_dispatch_too() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "updates", ReceiverSettings::default()).await;
    let extra = world.ledger() + "updates.partitions = 2\n";
    let mut first = world.dispatcher(&extra).await;
    first.terminate();
    assert_eq!(first.ended().await, Some(0));
    world.publish(updates(20, 10)).await;
    set_alarm(&broker, true).await;
    let mut one = world.dispatcher(&extra).await;
    world.applied(200).await;
    one.kill();
    // The lock may still be with the connection of the first one, which the alarm has frozen.
    let two = world.dispatcher(&extra).await;
    set_alarm(&broker, false).await;
    two.logged("the broker accepts publishes again").await;
    world.publish(updates(20, 12).skip(200)).await;
    let report = world.applied(240).await;
    assert_eq!(report.counts.reorders, 0, "{}", report.counts);
    assert_eq!(report.counts.older_tenures, 0, "{}", report.counts);
    world.dispatcher(&extra).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_start_under_an_alarm_says_so_once_and_goes_on_afterwards() {
    let broker = Arc::new(Broker::start());
    let world = World::on(Arc::clone(&broker), "updates", ReceiverSettings::default()).await;
    set_alarm(&broker, true).await;
    let dispatcher = world.start(&world.config("updates.partitions = 1"));
    dispatcher.logged("it has a memory or disk alarm").await;
    set_alarm(&broker, false).await;
    dispatcher.ready().await;
    let logged =
        lines(&dispatcher, "it has a memory or disk alarm") + lines(&dispatcher, "topology not ready");
    assert_eq!(logged, 1, "{:#?}", dispatcher.log());
    world.publish(updates(3, 3)).await;
    assert_flawless(&world.applied(9).await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_deleted_is_named_and_not_silently_declared_again() {
    let world = World::new("deleted").await;
    let mut dispatcher = world.dispatcher("updates.partitions = 3").await;
    world.publish(updates(30, 5)).await;
    assert_flawless(&world.applied(150).await, 150);
    let channel = world.channel().await;
    channel.queue_delete("deleted.l1.p001".into(), QueueDeleteOptions::default()).await.unwrap();
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("no queue 'deleted.l1.p001'").await;
    dispatcher.logged("it was deleted by hand").await;
    let again = world.dispatcher("updates.partitions = 3").await;
    again.logged("a queue of the layout was deleted, declaring it again").await;
    let more = updates(30, 10).filter(|update| update["body"]["sequence"].as_u64() > Some(5));
    world.publish(more.collect::<Vec<_>>()).await;
    assert_flawless(&world.applied(300).await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_from_the_user_is_named_and_heals_when_it_is_given_back() {
    let world = World::new("limited").await;
    let user = User { broker: &world.broker, name: "limited-user", exchange: "limited" };
    user.add().await;
    let dispatcher = world.start(&user.config(&world));
    dispatcher.ready().await;

    user.forbid().await;
    user.close_connections().await;
    dispatcher.logged("grant configure, write and read on limited and limited.*").await;
    // If it takes long, its lease has lapsed as well.
    let reasons = unready(&dispatcher).await;
    assert!(reasons.trim().ends_with("not attached: l1.p000 l1.p001"), "{reasons}");
    user.permit().await;
    dispatcher.ready().await;

    ctl(&world.broker, &["change_password", "limited-user", "wrong"]).await;
    user.close_connections().await;
    dispatcher.logged("access refused; check user, password and virtual host").await;
    unready(&dispatcher).await;
    ctl(&world.broker, &["change_password", "limited-user", "right"]).await;
    dispatcher.ready().await;

    ctl(&world.broker, &["delete_user", "limited-user"]).await;
    user.close_connections().await;
    unready(&dispatcher).await;
    user.add().await;
    dispatcher.ready().await;
    world.publish(updates(20, 5)).await;
    assert_flawless(&world.applied(100).await, 100);
    // One line for each change of the reason, however often it was tried: three connections, two losses.
    assert!(lines(&dispatcher, "broker not reached") <= 6, "{:#?}", dispatcher.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_permissions_ends_the_start_with_what_to_grant() {
    let world = World::new("unpermitted").await;
    let user = User { broker: &world.broker, name: "unpermitted-user", exchange: "unpermitted" };
    user.add().await;
    user.forbid().await;
    let mut dispatcher = world.start(&user.config(&world));
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("grant configure, write and read on unpermitted and unpermitted.*").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_host_that_is_deleted_is_waited_for_and_its_empty_successor_are_distinguished() {
    let world = World::new("vhost").await;
    let again = async || {
        ctl(&world.broker, &["add_vhost", "gone"]).await;
        ctl(&world.broker, &["set_permissions", "-p", "gone", "guest", ".*", ".*", ".*"]).await;
    };
    again().await;
    let config = world.config("updates.partitions = 1").replace("/%2f", "/gone");
    let mut dispatcher = world.start(&config);
    dispatcher.ready().await;
    ctl(&world.broker, &["delete_vhost", "gone"]).await;
    dispatcher.logged("vhost gone not found").await;
    unready(&dispatcher).await;
    again().await;
    // It has no queues: what was in them is lost, and that is not passed over.
    assert_eq!(dispatcher.ended().await, Some(3));
    dispatcher.logged("it was deleted by hand").await;
    let dispatcher = world.start(&config);
    dispatcher.ready().await;
    dispatcher.logged("made the layout").await;
}
