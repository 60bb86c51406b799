//! [`copy`]: from one store to another, under conditions.

use std::collections::BTreeMap;

use caskfile::{Cask, KvPair, Result, Store};

use crate::EtcdStore;

/// What becomes of a key that the target has already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Present {
    /// It stays as it is.
    #[default]
    Keep,
    /// It gets the value of the source, if no other program changes it meanwhile.
    Replace,
}

/// What a copy has done.
///
/// ```
/// let copied = caskfile_etcd::Copied::default();
/// assert_eq!((copied.written, copied.kept), (0, 0));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Copied {
    /// Pairs that were written.
    pub written: u64,
    /// Keys that the target had with the same value.
    pub same: u64,
    /// Keys that the target had with another value, which stay as they are: with [`Present::Keep`], or because another program has changed them
    /// during the copy.
    pub kept: u64,
    /// Pairs with a time to live and keys of locks. They are not copied: the copy would outlive them.
    pub left_out: u64,
}

/// Copies all pairs whose key starts with these bytes from one store to another, and returns what was done.
///
/// The pairs of the source are those of one moment. Each is written with a condition, so that nothing is lost that another program writes to the
/// target meanwhile. A copy that was broken off can be made again: what is there with the same value is left. `last_index` is not copied,
/// since each store numbers its own writes: pairs that a program has read from the source are of no use in the target.
///
/// Pairs with a time to live are left out where the source is a [`Cask`] or an [`EtcdStore`]; other stores do not say which these are.
///
/// Cost: one list of each store, in memory, and one write for each pair.
///
/// # Errors
///
/// Those of the stores. What was copied until then stays. [`ValueTooLong`](caskfile::Error::ValueTooLong) if a value does not fit into a request to etcd.
///
/// ```
/// # let directory = std::env::temp_dir().join(format!("caskfile-etcd-doc-copy-{}", std::process::id()));
/// # std::fs::create_dir_all(&directory).unwrap();
/// use caskfile::Cask;
/// use caskfile_etcd::{Present, copy};
///
/// let (from, to) = (Cask::open(directory.join("from"))?, Cask::open(directory.join("to"))?);
/// from.put("colour", "blue")?;
/// from.put("shape", "round")?;
/// to.put("shape", "square")?;
/// let copied = copy(&from, &to, b"", Present::Keep)?;
/// assert_eq!((copied.written, copied.kept), (1, 1));
/// assert_eq!(to.get("shape")?.value, b"square");
/// # std::fs::remove_dir_all(directory).unwrap();
/// # Ok::<(), caskfile::Error>(())
/// ```
pub fn copy(from: &dyn Store, to: &dyn Store, prefix: &[u8], present: Present) -> Result<Copied> {
    let (pairs, left_out) = lasting(from, prefix)?;
    let there: BTreeMap<Vec<u8>, KvPair> = to.list(prefix)?.into_iter().map(|pair| (pair.key.clone(), pair)).collect();
    let mut copied = Copied { left_out, ..Copied::default() };
    for pair in pairs {
        let previous = there.get(&pair.key);
        match previous {
            Some(previous) if previous.value == pair.value => {
                copied.same += 1;
                continue;
            }
            Some(_) if present == Present::Keep => {
                copied.kept += 1;
                continue;
            }
            _ => {}
        }
        match to.atomic_put(&pair.key, &pair.value, previous) {
            Ok(_) => copied.written += 1,
            Err(error) if error.is_conflict() => copied.kept += 1,
            Err(error) => return Err(error),
        }
    }
    Ok(copied)
}

/// The pairs of a store that have no end, and how many others there are.
fn lasting(store: &dyn Store, prefix: &[u8]) -> Result<(Vec<KvPair>, u64)> {
    if let Some(etcd) = store.downcast_ref::<EtcdStore>() {
        return etcd.lasting(prefix);
    }
    let Some(cask) = store.downcast_ref::<Cask>() else { return Ok((store.list(prefix)?, 0)) };
    let (mut pairs, mut left_out) = (Vec::new(), 0);
    let mut scan = cask.scan(prefix)?;
    while let Some(pair) = scan.next_ref() {
        let pair = pair?;
        match pair.expires_at.is_some() || pair.session().is_some() {
            true => left_out += 1,
            false => pairs.push(pair.to_pair()),
        }
    }
    Ok((pairs, left_out))
}
