#![doc = include_str!("../README.md")]
//!
//! # The names
//!
//! [`EtcdConfig`] says where the cluster is. It [opens](EtcdConfig::open) an [`EtcdStore`], or [registers](EtcdConfig::register) a name for
//! [`new_store`](caskfile::new_store). [`EtcdError`] says what the cluster or the way to it has refused. [`copy`] moves pairs from one store to
//! another.

mod cluster;
mod config;
mod copy;
mod error;
mod feed;
mod keys;
mod list;
mod lock;
mod store;
mod tasks;

pub use config::EtcdConfig;
pub use copy::{Copied, Present, copy};
pub use error::EtcdError;
#[cfg(feature = "tls")]
pub use etcd_client::{Certificate, Identity, TlsOptions};
pub use keys::MAX_REQUEST_BYTES;
pub use store::EtcdStore;
