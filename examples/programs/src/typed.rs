//! A typed layer: a bucket whose values have one type, stored as JSON.
//!
//! ```
//! use caskfile_programs::typed::{Result, Typed};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct User {
//!     visits: u64,
//! }
//!
//! # let path = std::env::temp_dir().join(format!("caskfile-typed-{}", std::process::id()));
//! # let cask = caskfile::Cask::open(&path)?;
//! let users = Typed::<User>::new(cask.bucket("users")?);
//! let index = users.put("anna", &User { visits: 1 })?;
//! assert_eq!(users.get("anna")?.map(|(user, index)| (user.visits, index)), Some((1, index)));
//! users.update("anna", |user| Some(User { visits: user.map_or(0, |user| user.visits) + 1 }))?;
//! users.update("ben", |_| None)?;
//! let all = users.scan("")?.collect::<Result<Vec<_>>>()?;
//! assert_eq!((all.len(), all[0].1.visits), (1, 2));
//! # std::fs::remove_file(path)?;
//! # Result::Ok(())
//! ```

use std::error::Error;
use std::marker::PhantomData;

use caskfile::{Cask, OptionalExt, Update};
use serde::{Serialize, de::DeserializeOwned};

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

pub struct Typed<T>(pub Cask, PhantomData<fn() -> T>);

impl<T: Serialize + DeserializeOwned> Typed<T> {
    pub fn new(bucket: Cask) -> Typed<T> {
        Typed(bucket, PhantomData)
    }

    /// The value of a key and its index.
    pub fn get(&self, key: &str) -> Result<Option<(T, u64)>> {
        let pair = self.0.get(key).optional()?;
        pair.map(|pair| Ok((serde_json::from_slice(&pair.value)?, pair.last_index))).transpose()
    }

    pub fn put(&self, key: &str, value: &T) -> Result<u64> {
        Ok(self.0.put(key, serde_json::to_vec(value)?)?)
    }

    /// Replaces a value by what `f` makes of it; `None` removes the key.
    pub fn update(&self, key: &str, mut f: impl FnMut(Option<T>) -> Option<T>) -> Result<()> {
        self.0.try_update(key, |pair| -> Result<Update> {
            let old = pair.map(|pair| serde_json::from_slice(&pair.value)).transpose()?;
            Ok(match f(old) {
                Some(new) => Update::Put(serde_json::to_vec(&new)?),
                None => Update::Delete,
            })
        })?;
        Ok(())
    }

    /// All keys that start with `prefix`, with their values and indexes, at one moment.
    pub fn scan(&self, prefix: &str) -> Result<impl Iterator<Item = Result<(String, T, u64)>>> {
        Ok(self.0.scan(prefix)?.map(|pair| {
            let pair = pair?;
            Ok((String::from_utf8(pair.key)?, serde_json::from_slice(&pair.value)?, pair.last_index))
        }))
    }
}
