//! [`Backend`] and [`new_store`]: opening a store by the name of its backend.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Cask, Config, Error, Result, Store};

/// An implementation of [`Store`] that [`new_store`] can open by name.
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

    /// The names of [`Backend::ALL`], as [`Error::BackendNotSupported`] has them.
    const SUPPORTED: &'static str = "caskfile";
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
        Backend::ALL
            .iter()
            .copied()
            .find(|backend| backend.as_ref() == name)
            .ok_or_else(|| Error::BackendNotSupported { name: name.to_owned(), supported: Backend::SUPPORTED })
    }
}

/// Opens the store at `address` with the backend that has this name, and returns it. The name is text or a [`Backend`].
///
/// The backend defines what an address is, and what happens if there is nothing at it. For `"caskfile"` it is a path, and
/// the file is created unless [`Config::create`] is off.
///
/// Cost: that of opening, here [`Cask::open_with`].
///
/// # Errors
///
/// - [`Error::BackendNotSupported`] if no backend of [`Backend::ALL`] has this name. The address is not looked at.
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
    match backend.as_ref().parse()? {
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
        let names: Vec<&str> = Backend::ALL.iter().map(AsRef::as_ref).collect();
        for wrong in ["boltdb", "", "Caskfile", " caskfile", "caskfile\0"] {
            match wrong.parse::<Backend>() {
                Err(Error::BackendNotSupported { name, supported }) => {
                    assert_eq!(name, wrong);
                    assert_eq!(supported, names.join(", "), "SUPPORTED must have the names of ALL");
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
