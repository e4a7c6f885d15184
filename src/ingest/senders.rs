//! The numbers that clients and hooks have in the intake, which keep them when the config changes.

use std::collections::HashMap;

use crate::config::{ClientConfig, HookConfig, IngestConfig};
use lanekeeper_core::publish::intake::{ClientLimits, Intake};

/// A hook is a client of the intake, too. Each kind has names of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SenderName {
    Client(String),
    Hook(String),
}

impl SenderName {
    /// As the config has it.
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Client(name) | Self::Hook(name) => name,
        }
    }

    pub(super) fn is_hook(&self) -> bool {
        matches!(self, Self::Hook(_))
    }

    /// All of a config: the clients, then the hooks, in its order.
    pub(super) fn all(config: &IngestConfig) -> impl Iterator<Item = Self> + '_ {
        let clients = config.clients.iter().map(|client| Self::Client(client.name.clone()));
        clients.chain(config.hooks.iter().map(|hook| Self::Hook(hook.name.clone())))
    }
}

/// Which number each name has.
#[derive(Debug, Default)]
pub(super) struct Senders {
    numbers: HashMap<SenderName, usize>,
    /// Numbers of senders that the config no longer has. One is used again when nothing of it waits.
    unused: Vec<usize>,
}

/// The numbers of the clients and hooks of a config, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SenderNumbers {
    pub(super) clients: Vec<usize>,
    pub(super) hooks: Vec<usize>,
}

impl Senders {
    /// How many updates of each wait.
    pub(super) fn loads(&self, intake: &Intake) -> HashMap<SenderName, usize> {
        self.numbers.iter().map(|(name, number)| (name.clone(), intake.load_of_client(*number))).collect()
    }

    /// The intake has the clients and hooks of this config from now on, with their bounds.
    pub(super) fn change(&mut self, config: &IngestConfig, intake: &mut Intake) -> SenderNumbers {
        let client = |client: &ClientConfig| {
            let limits = ClientLimits { pending_max: client.pending_max.get(), rate_max: client.rate_max };
            (SenderName::Client(client.name.clone()), limits)
        };
        let hook = |hook: &HookConfig| {
            let limits = ClientLimits { pending_max: hook.pending_max.get(), rate_max: None };
            (SenderName::Hook(hook.name.clone()), limits)
        };
        let clients: Vec<_> = config.clients.iter().map(client).collect();
        let hooks: Vec<_> = config.hooks.iter().map(hook).collect();
        let mut before = std::mem::take(&mut self.numbers);
        for (name, _) in clients.iter().chain(&hooks) {
            if let Some(number) = before.remove(name) {
                self.numbers.insert(name.clone(), number);
            }
        }
        let mut gone: Vec<usize> = before.into_values().collect();
        gone.sort_unstable();
        self.unused.extend(gone);
        let mut number_of = |(name, limits): (SenderName, ClientLimits)| {
            let number = self.numbers.get(&name).copied().unwrap_or_else(|| {
                let idle = self.unused.iter().position(|number| intake.load_of_client(*number) == 0);
                match idle {
                    Some(at) => {
                        let number = self.unused.swap_remove(at);
                        intake.replace_client(number, limits);
                        number
                    }
                    None => intake.add_client(limits),
                }
            });
            intake.change_client(number, limits);
            self.numbers.insert(name, number);
            number
        };
        SenderNumbers {
            clients: clients.into_iter().map(&mut number_of).collect(),
            hooks: hooks.into_iter().map(&mut number_of).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;
    use crate::config::{Environment, Purpose, load};
    use lanekeeper_core::publish::intake::{BodyHash, IntakeLimits, Offer, UpdateName};
    use lanekeeper_core::publish::outbox::{PublishReceipt, PublishResult};
    use lanekeeper_core::tick::Tick;
    use lanekeeper_core::update::RecordKey;

    /// `crm shop /github`: two clients and a hook, in this order of each kind.
    fn config(names: &str) -> IngestConfig {
        let section = |(index, name): (usize, &str)| {
            let secret = format!("0123456789abcdef-{index}");
            match name.strip_prefix('/') {
                Some(name) => format!(
                    "[[ingest.hook]]\nname = \"{name}\"\nverify = \"github\"\nsecrets = [\"{secret}\"]\n\
                     record_key = [\"/id\"]\n"
                ),
                None => format!("[[ingest.client]]\nname = \"{name}\"\ntokens = [\"{secret}\"]\n"),
            }
        };
        let text: String = names.split_whitespace().enumerate().map(section).collect();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("door.toml");
        std::fs::write(&path, text).unwrap();
        load(Some(&path), &Environment::default(), Purpose::Ingest).unwrap().config.ingest
    }

    fn intake() -> Intake {
        Intake::new(IntakeLimits {
            pending_max: 10,
            pending_bytes_max: 1000,
            pending_per_record_max: 10,
            remember: Duration::ZERO,
            remembered_max: 0,
            clients: Vec::new(),
        })
    }

    #[test]
    fn a_sender_keeps_its_number_and_one_with_updates_that_wait_gives_it_to_nobody() {
        let (mut senders, mut intake) = (Senders::default(), intake());
        let mut change = |names: &str, intake: &mut Intake| {
            let SenderNumbers { clients, hooks } = senders.change(&config(names), intake);
            (clients, hooks)
        };
        assert_eq!(change("crm shop /github", &mut intake), (vec![0, 1], vec![2]));
        assert_eq!(change("/github shop crm", &mut intake), (vec![1, 0], vec![2]));
        // A hook and a client with one name are two senders.
        assert_eq!(change("github /github crm", &mut intake), (vec![1, 0], vec![2]));
        let offer = Offer {
            name: UpdateName([0; 16]),
            body_hash: BodyHash([0; 16]),
            record_key: RecordKey::new("a".to_owned()).unwrap(),
            bytes: 1,
        };
        let admitted = intake.admit(0, &[offer], Tick::ZERO, Tick::ZERO).unwrap();
        assert_eq!(change("erp", &mut intake), (vec![1], vec![]), "an idle one is used again");
        assert_eq!(change("erp new", &mut intake), (vec![1, 2], vec![]));
        assert_eq!(
            change("erp new more", &mut intake),
            (vec![1, 2, 3], vec![]),
            "crm has an update that waits"
        );
        let receipt =
            PublishReceipt { submission_id: admitted.submit[0].1, result: PublishResult::Confirmed };
        intake.receipt(receipt, Tick::ZERO);
        assert_eq!(change("erp new more again", &mut intake), (vec![1, 2, 3, 0], vec![]));
    }

    #[test]
    fn bounds_change_with_the_config() {
        let (mut senders, mut intake) = (Senders::default(), intake());
        let mut config = config("crm");
        config.clients[0].pending_max = NonZeroUsize::new(1).unwrap();
        senders.change(&config, &mut intake);
        let offer = |id: u8| Offer {
            name: UpdateName([id; 16]),
            body_hash: BodyHash([0; 16]),
            record_key: RecordKey::new("a".to_owned()).unwrap(),
            bytes: 1,
        };
        let admits =
            |id: u8, intake: &mut Intake| intake.admit(0, &[offer(id)], Tick::ZERO, Tick::ZERO).is_ok();
        assert!(admits(1, &mut intake) && !admits(2, &mut intake));
        config.clients[0].pending_max = NonZeroUsize::new(2).unwrap();
        senders.change(&config, &mut intake);
        assert!(admits(2, &mut intake) && !admits(3, &mut intake));
        config.clients[0].pending_max = NonZeroUsize::new(1).unwrap();
        senders.change(&config, &mut intake);
        assert!(!admits(3, &mut intake) && intake.load_of_client(0) == 2, "what waits goes on");
    }
}
