//! redb. A transaction for each call. `Durability::None` keeps what it commits in the process until some durable commit, so
//! that it survives less than what others do without a sync.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::{CACHE_BYTES, after_prefix};
use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[Kind {
    name: "redb",
    role: Role::Peer,
    open,
    unsynced: "Durability::None: lost with the process until the next durable commit",
    durable: "Durability::Immediate",
}];

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pairs");

struct Redb {
    database: Database,
    durability: Durability,
}

fn open(path: &Path, mode: Mode) -> Result<Box<dyn Engine>> {
    let durability = match mode {
        Mode::Unsynced => Durability::None,
        Mode::Durable => Durability::Immediate,
    };
    let path = path.join("store");
    let is_new = !path.exists();
    let database = Database::builder().set_cache_size(CACHE_BYTES).create(path)?;
    if is_new {
        let transaction = database.begin_write()?;
        transaction.open_table(TABLE)?;
        transaction.commit()?;
    }
    Ok(Box::new(Redb { database, durability }))
}

impl Redb {
    fn write<T>(&self, change: impl FnOnce(&mut Table<&[u8], &[u8]>) -> Result<T>) -> Result<T> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        let done = change(&mut transaction.open_table(TABLE)?)?;
        transaction.commit()?;
        Ok(done)
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(|table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        let value = self.database.begin_read()?.open_table(TABLE)?.get(key)?;
        Ok(value.map(|value| seen(value.value())).is_some())
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        Ok(self.database.begin_read()?.open_table(TABLE)?.get(key)?.is_some())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(|table| {
            table.remove(key)?;
            Ok(())
        })
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        self.write(|table| {
            let is_old = table.get(key)?.is_some_and(|value| value.value() == old);
            if is_old {
                table.insert(key, new)?;
            }
            Ok(is_old)
        })
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        self.write(|table| {
            for (key, value) in pairs.iter() {
                table.insert(key, value)?;
            }
            Ok(())
        })
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        let end = after_prefix(prefix);
        let range = (std::ops::Bound::Included(prefix), end.as_ref().map(Vec::as_slice));
        for pair in table.range::<&[u8]>(range)? {
            let (key, value) = pair?;
            seen(key.value(), value.value());
        }
        Ok(())
    }

    fn compact(mut self: Box<Self>, _: usize) -> Result<()> {
        while self.database.compact()? {}
        self.close()
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.close()?)
    }
}
