//! `CurrentTargets`: the targets of a config that changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use lanekeeper::http::current::CurrentTargets;

use super::{target_with, targets};

#[tokio::test]
async fn the_addresses_are_those_of_the_urls_in_force() {
    let config = |host: &str| {
        target_with(&format!(
            "url = \"http://{host}/{{record_key}}\"\n[[target.on]]\ntypes = [\"a\"]\nurl = \"https://b.example/x\""
        ))
    };
    let begun = targets(config("a.example")).unwrap();
    let current = CurrentTargets::new(begun, Arc::new(|| Box::pin(async {})));
    let addresses = |first: &str| BTreeSet::from([(first.to_owned(), 80), ("b.example".to_owned(), 443)]);
    assert_eq!(current.addresses(), addresses("a.example"));
    current.change(&[config("c.example")]).unwrap();
    assert_eq!(current.addresses(), addresses("c.example"));
    // What cannot be reached but through a proxy is no sign of anything.
    let proxied = target_with("url = \"http://a.example/{record_key}\"\nproxy = \"http://[::1]:3128\"");
    current.change(&[proxied]).unwrap();
    assert_eq!(current.addresses(), BTreeSet::from([("::1".to_owned(), 3128)]));
}
