//! Every promise of the contract, over a cluster of three members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use caskfile::conformance::{self, Fixture};
use caskfile::{Config, Store};

use crate::server::shared;

/// A root of its own in the cluster that the tests share.
struct Root(String);

impl Fixture for Root {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(shared().config().root(self.0.as_str()).open(&Config::new()).unwrap())
    }

    fn persistent(&self) -> bool {
        true
    }

    fn shared(&self) -> bool {
        true
    }
}

#[test]
fn the_cluster_keeps_every_promise_of_the_contract() {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let outcome = conformance::run(|| Root(format!("conformance/{}/", NEXT.fetch_add(1, Ordering::Relaxed))));
    assert_eq!(outcome.not_supported, []);
    assert!(outcome.kept > 90, "{}", outcome.kept);
}
