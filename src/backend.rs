//! [`Backend`], [`register_backend`] and [`new_store`]: opening a store by the name of its backend.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{Cask, Config, Error, Result, Store};

/// An implementation of [`Store`] in this library, which [`new_store`] can open by name. Those of other crates have names only: see
/// [`register_backend`].
///
/// ```
/// use caskfile::Backend;
///
/// let backend: Backend = "caskfile".parse()?;
/// assert_eq!(backend, Backend::Caskfile);
/// assert_eq!(backend.to_string(), "caskfile");
/// # Ok::<(), caskfile::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// `"caskfile"`: [`Cask`], one file on a local disk; the address is its path.
    Caskfile,
}

impl Backend {
    /// All backends of this build.
    ///
    /// ```
    /// let names: Vec<String> = caskfile::Backend::ALL.iter().map(|backend| backend.to_string()).collect();
    /// assert_eq!(names, ["caskfile"]);
    /// ```
    pub const ALL: &'static [Backend] = &[Backend::Caskfile];
}

impl AsRef<str> for Backend {
    fn as_ref(&self) -> &str {
        match self {
            Backend::Caskfile => "caskfile",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_ref())
    }
}

/// The name must be exact: case counts, and blanks are not trimmed.
impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Backend> {
        Backend::ALL.iter().copied().find(|backend| backend.as_ref() == name).ok_or_else(|| not_supported(name))
    }
}

/// What opens the stores of a registered backend.
type Open = dyn Fn(&OsStr, &Config) -> Result<Arc<dyn Store>> + Send + Sync;

/// The backends of other crates, by their names.
static REGISTERED: Mutex<BTreeMap<String, Arc<Open>>> = Mutex::new(BTreeMap::new());

fn registered() -> MutexGuard<'static, BTreeMap<String, Arc<Open>>> {
    // It changes by whole names, so a panic leaves no half a change.
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn not_supported(name: &str) -> Error {
    let own = Backend::ALL.iter().map(|backend| backend.as_ref().to_owned());
    let names: Vec<String> = own.chain(registered().keys().cloned()).collect();
    Error::BackendNotSupported { name: name.to_owned(), supported: names.join(", ") }
}

/// Gives a backend a name, by which [`new_store`] opens it in this process from now on. `open` gets the address and the configuration.
///
/// A backend that needs more than those, such as user and password, captures it. What of the configuration has no meaning for it, it
/// ignores, and says so in its documentation. A name stays for the life of the process.
///
/// # Errors
///
/// [`Error::BackendExists`] if the name is taken, by a backend of this library or another one.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
///
/// use caskfile::{Cask, Config, Error, new_store, register_backend};
///
/// // Keeps its stores in one directory, whatever the program says.
/// # let directory = std::env::temp_dir().join(format!("caskfile-doc-register-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory).unwrap();
/// # let stores = directory.clone();
/// let open = move |address: &std::ffi::OsStr, config: &Config| -> caskfile::Result<Arc<dyn caskfile::Store>> {
///     Ok(Arc::new(Cask::open_with(stores.join(address), config)?))
/// };
/// register_backend("in-one-place", Arc::new(open.clone()))?;
/// assert!(matches!(register_backend("in-one-place", Arc::new(open)), Err(Error::BackendExists { .. })));
///
/// let store = new_store("in-one-place", "settings", &Config::new())?;
/// store.put(b"colour", b"blue")?;
/// # store.close()?;
/// # std::fs::remove_dir_all(directory).unwrap();
/// # Ok::<(), Error>(())
/// ```
// Written out, since a reader of the documentation needs all of it.
#[allow(clippy::type_complexity)]
pub fn register_backend(
    name: &str,
    open: Arc<dyn Fn(&OsStr, &Config) -> Result<Arc<dyn Store>> + Send + Sync>,
) -> Result<()> {
    let mut registered = registered();
    if registered.contains_key(name) || Backend::ALL.iter().any(|backend| backend.as_ref() == name) {
        return Err(Error::BackendExists { name: name.to_owned() });
    }
    registered.insert(name.to_owned(), open);
    Ok(())
}

/// Opens the store at `address` with the backend that has this name, and returns it. The name is text or a [`Backend`]: that of a
/// backend of this library, or one that was [registered](register_backend).
///
/// The backend defines what an address is, and what happens if there is nothing at it. For `"caskfile"` it is a path, and
/// the file is created unless [`Config::create`] is off.
///
/// Cost: that of opening, here [`Cask::open_with`].
///
/// # Errors
///
/// - [`Error::BackendNotSupported`] if no backend has this name. The address is not looked at.
/// - Those of opening, here [`Cask::open_with`].
///
/// # Example
///
/// ```
/// use caskfile::{Backend, Config, Error, new_store};
///
/// # let path = std::env::temp_dir().join(format!("caskfile-doc-new-store-{}", std::process::id()));
/// let config = Config::new();
/// let store = new_store("caskfile", &path, &config)?;
/// store.put(b"colour", b"blue")?;
/// store.close()?;
///
/// let store = new_store(Backend::Caskfile, &path, &config)?;
/// assert_eq!(store.get(b"colour")?.value, b"blue");
///
/// let error = new_store("boltdb", &path, &config).unwrap_err();
/// assert_eq!(error.to_string(), r#"backend "boltdb" is not supported; supported backends: caskfile"#);
/// # store.close()?;
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), Error>(())
/// ```
pub fn new_store(backend: impl AsRef<str>, address: impl AsRef<OsStr>, config: &Config) -> Result<Arc<dyn Store>> {
    let name = backend.as_ref();
    // Its own statement: opening may take long, and may use this function again.
    let other = registered().get(name).cloned();
    if let Some(open) = other {
        return open(address.as_ref(), config);
    }
    match name.parse()? {
        Backend::Caskfile => Ok(Arc::new(Cask::open_with(Path::new(&address), config)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_is_found_by_its_name() {
        for backend in Backend::ALL {
            assert_eq!(backend.to_string().parse::<Backend>().unwrap(), *backend);
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_names() {
        let own: Vec<&str> = Backend::ALL.iter().map(AsRef::as_ref).collect();
        for wrong in ["boltdb", "", "Caskfile", " caskfile", "caskfile\0"] {
            match wrong.parse::<Backend>() {
                Err(Error::BackendNotSupported { name, supported }) => {
                    assert_eq!(name, wrong);
                    // Other tests register others.
                    assert!(supported.starts_with(&own.join(", ")), "{supported}");
                }
                other => panic!("{wrong:?} gave {other:?}"),
            }
        }
    }

    #[test]
    fn an_unknown_backend_touches_no_file() {
        let path = std::env::temp_dir().join(format!("caskfile-no-such-backend-{}", std::process::id()));
        assert!(matches!(new_store("nothing", &path, &Config::new()), Err(Error::BackendNotSupported { .. })));
        assert!(!path.exists());
    }

    #[test]
    fn a_registered_backend_is_opened_by_its_name() {
        let open = |address: &OsStr, config: &Config| {
            assert_eq!((address, config.get_read_only()), (OsStr::new("an address"), true));
            Err(Error::KeyModified)
        };
        let config = Config::new().read_only(true);
        let name = "of a test";
        assert!(matches!(new_store(name, "an address", &config), Err(Error::BackendNotSupported { .. })));
        register_backend(name, Arc::new(open)).unwrap();
        assert!(matches!(new_store(name, "an address", &config), Err(Error::KeyModified)));

        // Nothing else has changed.
        match new_store("of another", "an address", &config) {
            Err(Error::BackendNotSupported { supported, .. }) => {
                assert!(supported.split(", ").any(|supported| supported == name), "{supported}");
            }
            other => panic!("{other:?}"),
        }
        assert!(new_store("caskfile", std::env::temp_dir(), &config).is_err_and(|error| !error.is_conflict()));
        assert!(name.parse::<Backend>().is_err());
    }

    #[test]
    fn a_taken_name_is_refused_and_stays_what_it_was() {
        let open = |which: Error| Arc::new(move |_: &OsStr, _: &Config| Err(which.clone()));
        register_backend("taken", open(Error::KeyExists)).unwrap();
        for name in ["taken", "caskfile"] {
            match register_backend(name, open(Error::KeyNotFound)) {
                Err(Error::BackendExists { name: said }) => assert_eq!(said, name),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(new_store("taken", "", &Config::new()), Err(Error::KeyExists)));
        assert!(!matches!(new_store("caskfile", std::env::temp_dir(), &Config::new()), Err(Error::KeyNotFound)));
        // Case counts.
        register_backend("Taken", open(Error::KeyNotFound)).unwrap();
    }

    #[test]
    fn a_backend_may_open_another_one() {
        let open = |address: &OsStr, config: &Config| new_store("caskfile", address, config);
        register_backend("of two layers", Arc::new(open)).unwrap();
        let path = std::env::temp_dir().join(format!("caskfile-two-layers-{}", std::process::id()));
        let store = new_store("of two layers", &path, &Config::new()).unwrap();
        store.put(b"key", b"value").unwrap();
        store.close().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_name_is_a_backend_or_any_text() {
        // These must compile. The address is a directory, so opening fails.
        let directory = std::env::temp_dir();
        let name = String::from("caskfile");
        assert!(new_store(Backend::Caskfile, &directory, &Config::new()).is_err());
        assert!(new_store("caskfile", directory.as_os_str(), &Config::new()).is_err());
        assert!(new_store(&name, directory.to_str().unwrap(), &Config::new()).is_err());
        assert!(new_store(name, &directory, &Config::new()).is_err());
    }
}
