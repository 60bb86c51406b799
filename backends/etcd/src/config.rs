//! [`EtcdConfig`].

use std::ffi::OsStr;
use std::fmt;
use std::sync::Arc;

use caskfile::{Config, Error, Result, Store, register_backend};

use crate::{EtcdError, EtcdStore};

/// Where a cluster is, and which keys of it are the store's.
///
/// ```no_run
/// use caskfile::{Config, new_store};
/// use caskfile_etcd::EtcdConfig;
///
/// EtcdConfig::new(["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"]).user("app", "secret").register("etcd")?;
///
/// // From here on, "etcd" is a backend like "caskfile".
/// let store = new_store("etcd", "", &Config::new())?;
/// store.put(b"colour", b"blue")?;
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a configuration does nothing until a store is opened with it"]
pub struct EtcdConfig {
    pub(crate) endpoints: Vec<String>,
    pub(crate) user: Option<(String, String)>,
    pub(crate) root: Vec<u8>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<crate::TlsOptions>,
}

impl EtcdConfig {
    /// Returns a configuration for the cluster whose members listen for clients at these endpoints: `host:port`, or a URL that begins with
    /// `http://` or `https://`. One member is enough; with all of them, the store goes on when some fail.
    ///
    /// ```
    /// let config = caskfile_etcd::EtcdConfig::new(["127.0.0.1:2379"]);
    /// assert_eq!(config.get_root(), b"caskfile/");
    /// ```
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdConfig {
        EtcdConfig {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            user: None,
            root: b"caskfile/".to_vec(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Sets name and password of the user, for a cluster with authentication. They are kept in memory, since tokens expire.
    ///
    /// ```
    /// let config = caskfile_etcd::EtcdConfig::new(["127.0.0.1:2379"]).user("app", "secret");
    /// assert!(!format!("{config:?}").contains("secret"));
    /// ```
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> EtcdConfig {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Sets what all keys of the store begin with in etcd; `caskfile/` by default. It has 1 to 1,024 bytes: opening refuses others.
    ///
    /// Two stores in one cluster need roots of which neither is the beginning of the other.
    ///
    /// ```
    /// let config = caskfile_etcd::EtcdConfig::new(["127.0.0.1:2379"]).root("app-1/");
    /// assert_eq!(config.get_root(), b"app-1/");
    /// ```
    pub fn root(mut self, root: impl Into<Vec<u8>>) -> EtcdConfig {
        self.root = root.into();
        self
    }

    /// Sets certificates and keys for endpoints with `https://`.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::TlsOptions) -> EtcdConfig {
        self.tls = Some(tls);
        self
    }

    /// Returns what all keys begin with. See [`EtcdConfig::root`] for an example.
    pub fn get_root(&self) -> &[u8] {
        &self.root
    }

    /// Opens the store, and asks the cluster once whether it is there.
    ///
    /// Of the [`Config`], these count: [`bucket`](Config::bucket), [`read_only`](Config::read_only), and
    /// [`connection_timeout`](Config::connection_timeout), which is the time of each call. Zero counts as one second. The others have no effect:
    /// etcd writes every change to the disks of most members before it answers, and compacts its history by itself if it is set up to.
    ///
    /// # Errors
    ///
    /// - [`Error::CallNotSupported`] for [`LockMode::Exclusive`](caskfile::LockMode::Exclusive): a cluster cannot be opened exclusively.
    /// - [`Error::BucketTooLong`].
    /// - [`EtcdError`], in [`Error::Other`]: no member answers, the user is refused, or the configuration cannot be used.
    ///
    /// ```no_run
    /// use caskfile::{Config, Store};
    ///
    /// let store = caskfile_etcd::EtcdConfig::new(["127.0.0.1:2379"]).open(&Config::new())?;
    /// store.put(b"colour", b"blue")?;
    /// # Ok::<(), caskfile::Error>(())
    /// ```
    pub fn open(&self, config: &Config) -> Result<EtcdStore> {
        EtcdStore::open(self, config)
    }

    /// Gives this cluster a name, by which [`new_store`](caskfile::new_store) opens it from now on. The address of `new_store` is a list of
    /// endpoints, separated by commas, or empty for those of this configuration. User, root and TLS are those of this configuration in
    /// either case.
    ///
    /// # Errors
    ///
    /// [`Error::BackendExists`] if the name is taken.
    ///
    /// ```
    /// use caskfile::{Config, Error, new_store};
    /// use caskfile_etcd::EtcdConfig;
    ///
    /// EtcdConfig::new(["127.0.0.1:2379"]).register("settings of the site")?;
    /// let again = EtcdConfig::new(["127.0.0.1:2379"]).register("settings of the site");
    /// assert!(matches!(again, Err(Error::BackendExists { .. })));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn register(&self, name: &str) -> Result<()> {
        let registered = self.clone();
        let open = move |address: &OsStr, config: &Config| -> Result<Arc<dyn Store>> {
            let mut etcd = registered.clone();
            if !address.is_empty() {
                let wrong = || Error::other(EtcdError::Config { what: "the address is not UTF-8".to_owned() });
                etcd.endpoints = address.to_str().ok_or_else(wrong)?.split(',').map(str::to_owned).collect();
            }
            Ok(Arc::new(etcd.open(config)?))
        };
        register_backend(name, Arc::new(open))
    }
}

/// Leaves the password out.
impl fmt::Debug for EtcdConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdConfig")
            .field("endpoints", &self.endpoints)
            .field("user", &self.user.as_ref().map(|(name, _)| name))
            .field("root", &self.root.escape_ascii().to_string())
            .finish_non_exhaustive()
    }
}
