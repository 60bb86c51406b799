//! The store over real clusters of etcd, which the tests start. See [`server`].

mod callers;
mod conformance;
mod gaps;
mod histories;
mod locks;
mod moving;
mod proxy;
mod server;
