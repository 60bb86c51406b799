//! Threads that run one at a time, in orders that a checker chooses.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --lib interleaved` tries all orders of up to three threads in the queue.
//! `RUSTFLAGS="--cfg shuttle" cargo test --lib interleaved` tries many orders of threads that use the view's lock, or a whole
//! store on the simulated disk. Both find deadlocks as well. See `docs/TESTING.md`.

#[cfg(loom)]
mod queue;
#[cfg(shuttle)]
mod sharded;
#[cfg(shuttle)]
mod threads;

/// Runs a model in every order, and prints how many there were.
#[cfg(loom)]
fn in_every_order(name: &str, model: impl Fn() + Sync + Send + 'static) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    let orders = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&orders);
    loom::model(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{name}: {} orders", orders.load(Ordering::Relaxed));
}

/// Runs a model in random orders, and in as many that are chosen to find rare failures.
#[cfg(shuttle)]
fn in_many_orders(model: impl Fn() + Send + Sync + Clone + 'static) {
    /// How many switches of threads a rare failure may depend on.
    const DEPTH: usize = 3;
    let orders = std::env::var("CASKFILE_SHUTTLE_ORDERS").map_or(400, |orders| orders.parse().unwrap());
    shuttle::check_random(model.clone(), orders);
    shuttle::check_pct(model, orders, DEPTH);
    println!("{} orders", 2 * orders);
}
