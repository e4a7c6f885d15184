//! Judges facts and config of a door. Pure: findings are the result.

use std::net::SocketAddr;
use std::time::SystemTime;

use super::ObservedDoor;
use super::listening::{Listening, Occupant, PortState};
use crate::config::Config;
use crate::doctor::codes::Code;
use crate::doctor::facts::{Binding, DestinationKind, ExchangeManagement, ManagementCause, SeenExchange};
use crate::doctor::finding::{Finding, Unseen};
use crate::doctor::fix::{Fix, delete_exchange, quoted};
use crate::doctor::rules::{
    BLOCKED, WITHOUT_KEY, blocked_by, declare_again, elsewhere, expression, fault_of_management, limited,
    set_permissions, size_unseen, too_old,
};
use lanekeeper_broker::{ExchangePublishing, Names};

/// Matches no name.
const NONE: &str = "^$";

/// Every danger: worst first, within a severity by code.
pub(super) fn judge(observed: &ObservedDoor, config: &Config) -> Vec<Finding> {
    let mut findings: Vec<Finding> = too_old(observed.broker.version.as_deref().unwrap_or_default())
        .into_iter()
        .chain(alarms(observed))
        .chain(limited(&observed.message_size, config.updates.body_bytes_max))
        .chain(exchange(observed, config))
        .chain(not_shown(observed, config))
        .chain(addresses(&observed.listening, config))
        .chain(certificate(config, SystemTime::now()))
        .chain(without_tls(config))
        .chain(management(observed))
        .collect();
    findings.sort_by_key(|finding| (finding.severity, finding.code));
    findings
}

fn alarms(observed: &ObservedDoor) -> Vec<Finding> {
    let alarms = observed.management.as_ref().ok().and_then(|seen| seen.alarms.as_deref().ok());
    let publish = match observed.broker.publishing {
        ExchangePublishing::Blocked => Some(BLOCKED),
        ExchangePublishing::Silent => Some("the broker did not answer a publish within seconds"),
        _ => None,
    };
    blocked_by(alarms.unwrap_or_default(), publish)
}

/// If it is there, is as `lanekeeper run` declares it, and takes what this user publishes.
fn exchange(observed: &ObservedDoor, config: &Config) -> Option<Finding> {
    let name = &config.updates.exchange;
    match &observed.broker.publishing {
        ExchangePublishing::NotPermitted(words) => Some(not_permitted(observed, config, words)),
        ExchangePublishing::Missing => {
            let what = format!("the exchange {name} is not there yet; a door waits for it and answers 503");
            let run = Fix::Run("lanekeeper run --config FILE".to_owned());
            let name =
                Fix::Do("which declares it; or, if it has another name there, write that name:".to_owned());
            let line = Fix::Config("updates.exchange = \"NAME\"".to_owned());
            Some(Finding::new(Code::NoLayoutYet, what, vec![run, name, line]))
        }
        ExchangePublishing::Internal => Some(differs(observed, name, "internal = true", "false")),
        ExchangePublishing::Taken | ExchangePublishing::Blocked | ExchangePublishing::Silent => {
            seen_exchange(observed, observed.management.as_ref().ok()?, name)
        }
    }
}

/// The broker's words name user and object.
fn not_permitted(observed: &ObservedDoor, config: &Config, words: &str) -> Finding {
    let what = format!(
        "the broker refuses what `lanekeeper ingest` must do, which is to write to its exchange: {words}"
    );
    Finding::new(Code::NotPermitted, what, permit(observed, config))
}

/// A door that may not write to its exchange has a finding already, with the same fix.
fn not_shown(observed: &ObservedDoor, config: &Config) -> Option<Finding> {
    let ExchangePublishing::NotPermitted(words) = &observed.reports else { return None };
    let is_kept_out = matches!(observed.broker.publishing, ExchangePublishing::NotPermitted(_));
    (!is_kept_out).then(|| {
        let what = format!("the broker refuses the reports of the door: {words}");
        Finding::new(Code::DoorNotShown, what, permit(observed, config))
    })
}

/// What a door does at the broker, and nothing else: it publishes updates, and reports of itself.
fn permit(observed: &ObservedDoor, config: &Config) -> Vec<Fix> {
    let write = format!(r"^{}(\.doors)?$", expression(&config.updates.exchange));
    let users = config.broker.users().into_iter();
    let more = "which is all that a door needs; it replaces what the user may do in this virtual host, so add to it what \
                other programs do with this user";
    users
        .map(|user| set_permissions(&observed.vhost, &user, [NONE, &write, NONE]))
        .chain([Fix::Do(more.to_owned())])
        .collect()
}

/// If the exchange is as `lanekeeper run` declares it, and bound.
fn seen_exchange(observed: &ObservedDoor, seen: &ExchangeManagement, name: &str) -> Option<Finding> {
    if let Ok(SeenExchange { kind, durable, auto_delete, internal: _ }) = &seen.exchange {
        let (found, expected) = match (kind.as_str(), durable, auto_delete) {
            ("fanout", true, false) => (String::new(), ""),
            ("fanout", false, _) => ("durable = false".to_owned(), "true"),
            ("fanout", true, true) => ("auto_delete = true".to_owned(), "false"),
            (kind, ..) => (format!("type = {kind}"), "fanout"),
        };
        if !found.is_empty() {
            return Some(differs(observed, name, &found, expected));
        }
    }
    let ingress = Names::new(name).ingress();
    let is_ours = |binding: &Binding| {
        binding.to == DestinationKind::Exchange
            && binding.destination == ingress
            && binding.properties_key == WITHOUT_KEY
    };
    let is_unbound = seen.bindings.as_ref().is_ok_and(|bindings| !bindings.iter().any(is_ours));
    is_unbound.then(|| {
        let what = format!("missing bindings: {name} to {ingress}");
        Finding::new(Code::BindingMissing, what, declare_again())
    })
}

fn differs(observed: &ObservedDoor, name: &str, found: &str, expected: &str) -> Finding {
    let what = format!("exchange {name} has {found}, but it must be {expected}");
    let delete = match &observed.management {
        Ok(seen) => delete_exchange((&seen.url, &seen.user), &observed.vhost, name),
        Err(_) => Fix::Do(format!("delete the exchange {name}, in the RabbitMQ UI under Exchanges")),
    };
    let run = Fix::Run("lanekeeper run --config FILE".to_owned());
    let other = Fix::Do(
        "which declares it; or, if it is of another program, choose another updates.exchange".to_owned(),
    );
    Finding::new(Code::ObjectDiffers, what, vec![delete, run, other])
}

/// Where the door cannot listen. A door that has both addresses is the one that the config is for.
fn addresses(listening: &Listening, config: &Config) -> Vec<Finding> {
    if let Some(address) = config.ingest.address_shared_with(&config.admin) {
        let what = format!("ingest.listen and admin.listen are the same address, {address}");
        return vec![Finding::new(Code::DoorCannotListen, what, vec![another("admin.listen", address)])];
    }
    let ingest = listening.ingest.as_ref().and_then(|(address, state)| match state {
        PortState::Taken if listening.is_of_a_door() || cannot_tell(listening) => None,
        PortState::Taken => Some(taken("ingest.listen", *address, "another program listens there")),
        state => cannot_have("ingest.listen", *address, state),
    });
    let admin = listening.admin.as_ref().and_then(|(address, state)| match state {
        PortState::Taken if listening.is_of_a_door() => None,
        PortState::Taken => match &listening.at_admin {
            Occupant::Door => Some(taken_by_ours(*address, "another door listens there")),
            Occupant::Dispatcher => Some(taken_by_ours(*address, "a `lanekeeper run` listens there")),
            Occupant::NotReady => None,
            Occupant::Unknown => Some(taken("admin.listen", *address, "another program listens there")),
            Occupant::Other(why) => {
                let who = format!("another program listens there, or a door that does not answer ({why})");
                Some(taken("admin.listen", *address, &who))
            }
        },
        state => cannot_have("admin.listen", *address, state),
    });
    ingest.into_iter().chain(admin).collect()
}

/// The address is taken, and it cannot be asked if a door has it: at no port, or it does not answer yet.
fn cannot_tell(listening: &Listening) -> bool {
    listening.admin.is_none() || listening.at_admin == Occupant::NotReady
}

/// Another process of ours has the address of the admin port.
fn taken_by_ours(address: SocketAddr, who: &str) -> Finding {
    let what = format!("admin.listen = {address} is taken: {who}");
    let own = Fix::Do("give each process on a host an admin.listen of its own:".to_owned());
    Finding::new(Code::DoorCannotListen, what, vec![own, another("admin.listen", address)])
}

fn taken(key: &str, address: SocketAddr, who: &str) -> Finding {
    let what = format!("{key} = {address} is taken: {who}");
    let look = Fix::Run(sockets_at(address));
    let stop = Fix::Do("which shows the program: stop it, or choose another address:".to_owned());
    Finding::new(Code::DoorCannotListen, what, vec![look, stop, another(key, address)])
}

fn sockets_at(address: SocketAddr) -> String {
    format!("ss --listening --tcp --numeric --processes {}", quoted(&format!("sport = :{}", address.port())))
}

fn another(key: &str, address: SocketAddr) -> Fix {
    Fix::Config(format!(
        "{key} = \"{}\"",
        match address {
            SocketAddr::V4(_) => format!("{}:PORT", address.ip()),
            SocketAddr::V6(_) => format!("[{}]:PORT", address.ip()),
        }
    ))
}

fn cannot_have(key: &str, address: SocketAddr, state: &PortState) -> Option<Finding> {
    let (why, fix) = match state {
        PortState::Free | PortState::Taken => return None,
        PortState::OfAnotherHost => (
            "this host has no such address".to_owned(),
            "write an address of the host of the door, and call `doctor` there",
        ),
        PortState::NotPermitted => (
            "this user may not listen there".to_owned(),
            "call `doctor` as the user of the door; ports below 1024 need the capability CAP_NET_BIND_SERVICE, or choose a higher one",
        ),
        PortState::Refused(words) => {
            (words.clone(), "write an address of the host of the door, and call `doctor` there")
        }
    };
    let what = format!("{key} = {address} cannot be had: {why}");
    Some(Finding::new(Code::DoorCannotListen, what, vec![Fix::Do(fix.to_owned())]))
}

fn certificate(config: &Config, now: SystemTime) -> Option<Finding> {
    let (expires, left) = config.ingest.tls.as_ref()?.own.expiring(now)?;
    let (code, ends) = match left {
        None => (Code::DoorCertificateExpired, format!("has expired at {expires}")),
        Some(left) => (Code::DoorCertificateExpires, format!("expires at {expires}, in {left}")),
    };
    let renew = "renew it; a running door takes in files that have changed within two seconds".to_owned();
    Some(Finding::new(code, format!("ingest.tls.certificate {ends}"), vec![Fix::Do(renew)]))
}

fn without_tls(config: &Config) -> Option<Finding> {
    let address = config.ingest.plain_address()?;
    let what = format!("ingest.listen = {address} speaks plain HTTP to other hosts (ingest.insecure = true)");
    let tls = Fix::Config("ingest.tls = { certificate = \"file:PATH\", key = \"file:PATH\" }".to_owned());
    let proxy = Fix::Do(
        "or have a server in front of the door end TLS, and let only that server reach the door".to_owned(),
    );
    Some(Finding::new(Code::DoorWithoutTls, what, vec![tls, proxy]))
}

/// What a door's user may not see at the management API.
fn management(observed: &ObservedDoor) -> Option<Finding> {
    let other_user = |fix: &mut Vec<Fix>| {
        let what = "a door's user needs no tag; to have it checked, name a user that has the tag monitoring:";
        fix.push(Fix::Do(what.to_owned()));
        fix.push(Fix::Run(
            "lanekeeper doctor --config FILE --management http://USER:PASSWORD@HOST:15672".to_owned(),
        ));
    };
    let mut fix = Vec::new();
    let what = match &observed.management {
        Err(fault) => {
            match fault.cause {
                ManagementCause::Refused(_) => other_user(&mut fix),
                ManagementCause::Unreachable(_)
                | ManagementCause::OtherCluster(_)
                | ManagementCause::NotUnderstood(_) => {
                    fix.push(Fix::Do("say where it is (also as --management URL):".to_owned()));
                    fix.push(elsewhere());
                }
            }
            fault_of_management(fault, observed.broker.cluster.as_deref())
        }
        Ok(seen) => {
            let hidden: Vec<&str> = hidden(observed, seen).into_iter().map(|(what, ..)| what).collect();
            if hidden.is_empty() {
                return None;
            }
            other_user(&mut fix);
            format!("the management API does not show to user {}: {}", seen.user, hidden.join(", "))
        }
    };
    Some(Finding::new(Code::DoorSeenInPart, what, fix))
}

const TYPE: &str = "the type of the exchange";
const BINDINGS: &str = "its binding";
const ALARMS: &str = "alarms by node";

/// What the management API did not show, with its words. An exchange that is not there has no type and no binding.
fn hidden<'a>(observed: &ObservedDoor, seen: &'a ExchangeManagement) -> Vec<(&'static str, &'a str)> {
    let is_there = observed.broker.publishing != ExchangePublishing::Missing;
    let exchange = seen.exchange.as_ref().err().filter(|_| is_there).map(|words| (TYPE, words.as_str()));
    let bindings = seen.bindings.as_ref().err().filter(|_| is_there).map(|words| (BINDINGS, words.as_str()));
    let alarms = seen.alarms.as_ref().err().map(|words| (ALARMS, words.as_str()));
    [exchange, bindings, alarms].into_iter().flatten().collect()
}

/// What a person has to check by hand.
pub(super) fn unseen(observed: &ObservedDoor, config: &Config) -> Vec<Unseen> {
    let (vhost, exchange) = (quoted(&observed.vhost), &config.updates.exchange);
    let mut unseen = vec![Unseen::new(
        "what lies behind the exchange (queues, policies, consumers)",
        "a fault there can lose or reorder what the door has published; the config of `lanekeeper run` has it judged",
        "lanekeeper doctor --config CONFIG_OF_RUN",
    )];
    let hidden = match &observed.management {
        Ok(seen) => hidden(observed, seen),
        Err(_) if observed.broker.publishing == ExchangePublishing::Missing => vec![(ALARMS, "")],
        Err(_) => vec![(TYPE, ""), (BINDINGS, ""), (ALARMS, "")],
    };
    for (what, words) in hidden {
        let words = if words.is_empty() { String::new() } else { format!(" ({words})") };
        let (what, means, look) = match what {
            TYPE => (
                format!("the type of the exchange {exchange}"),
                "another type than fanout, which another program has declared, loses updates",
                format!("rabbitmqctl list_exchanges --vhost {vhost} name type durable auto_delete internal"),
            ),
            BINDINGS => (
                format!("the binding of the exchange {exchange} to {}", Names::new(exchange).ingress()),
                "without it, the broker returns each update, and a door answers 503",
                format!("rabbitmqctl list_bindings --vhost {vhost} source_name destination_name"),
            ),
            _ => (
                ALARMS.to_owned(),
                "only a test publish over AMQP shows if an alarm blocks publishes",
                "rabbitmq-diagnostics alarms".to_owned(),
            ),
        };
        unseen.push(Unseen::new(&what, &format!("{means}{words}"), &look));
    }
    unseen.extend(size_unseen(&observed.message_size, config));
    if let Some((address, PortState::Taken)) = &observed.listening.ingest
        && cannot_tell(&observed.listening)
    {
        let means = match observed.listening.at_admin {
            Occupant::NotReady => "what is at admin.listen starts or stops, and does not say if it is a door",
            _ => {
                "without an admin.listen that has a port, the door cannot be asked; if it does not run, another program has the address"
            }
        };
        unseen.push(Unseen::new(
            &format!("who listens at ingest.listen = {address}"),
            means,
            &sockets_at(*address),
        ));
    }
    unseen
}
