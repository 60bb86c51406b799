//! The store over real clusters of etcd, which the tests start. See [`server`].

mod conformance;
// Its parts are used by what comes next.
#[allow(dead_code)]
mod server;
