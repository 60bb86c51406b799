//! How often random lives have met each case: a test that hardly ever meets one proves nothing about it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Declares `Counts`, with a counter for each of these cases.
macro_rules! counts {
    ($($name:ident),* $(,)?) => {
        /// How often each case was met.
        #[derive(Default, Debug)]
        struct Counts { $($name: std::sync::atomic::AtomicU64,)* }
        impl Counts {
            fn expect_all(&self, least: u64) {
                $(assert!(
                    self.$name.load(std::sync::atomic::Ordering::Relaxed) >= least,
                    "hardly ever: {} of {self:?}",
                    stringify!($name)
                );)*
            }
        }
    };
}

pub(crate) use counts;

pub fn add(count: &AtomicU64) {
    count.fetch_add(1, Relaxed);
}
