//! Every promise of the contract, over a cluster of three members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use caskfile::conformance::{self, Fixture};
use caskfile::{Config, Store};

use crate::server::shared;

/// A root of its own in the cluster that the tests share.
struct Root(String);

impl Root {
    fn open(&self, root: &str, bucket: &[u8]) -> Arc<dyn Store> {
        Arc::new(shared().config().root(root).open(&Config::new().bucket(bucket)).unwrap())
    }
}

impl Fixture for Root {
    fn open(&self) -> Arc<dyn Store> {
        Root::open(self, &format!("{}/", self.0), b"")
    }

    fn persistent(&self) -> bool {
        true
    }

    fn shared(&self) -> bool {
        true
    }

    /// The buckets before and after, the last one, and the roots before and after.
    fn neighbours(&self) -> Vec<Arc<dyn Store>> {
        let own = format!("{}/", self.0);
        let roots = [format!("{}.", self.0), format!("{}0", self.0)];
        let buckets = [&b"\0"[..], b"a", &[0xff; 255]].map(|bucket| Root::open(self, &own, bucket));
        buckets.into_iter().chain(roots.map(|root| Root::open(self, &root, &[0xff; 255]))).collect()
    }

    /// Members whose elections take 1.5 seconds grant no shorter lease.
    fn short_ttl(&self) -> Duration {
        Duration::from_secs(3)
    }
}

#[test]
fn the_cluster_keeps_every_promise_of_the_contract() {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let outcome = conformance::run(|| Root(format!("conformance/{}", NEXT.fetch_add(1, Ordering::Relaxed))));
    assert_eq!(outcome.not_supported, []);
    assert!(outcome.kept > 110, "{}", outcome.kept);
    println!("{} promises kept", outcome.kept);
}
