//! RocksDB as the system has it, through its C interface: the crate that binds it brings its own C++ source along, or needs
//! libclang. With a Bloom filter of ten bits a key, which its authors recommend, and no compression.

use std::ffi::{CStr, CString, c_char, c_double, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::{PoisonError, RwLock};

use super::CACHE_BYTES;
use crate::engine::{Engine, Kind, Mode, Pairs, Result, Role};

pub const KINDS: &[Kind] = &[Kind {
    name: "rocksdb",
    role: Role::Peer,
    open,
    unsynced: "its default: written to the operating system",
    durable: "WriteOptions::sync",
}];

type Handle = *mut c_void;

#[link(name = "rocksdb")]
unsafe extern "C" {
    fn rocksdb_options_create() -> Handle;
    fn rocksdb_options_set_create_if_missing(options: Handle, create: c_uchar);
    fn rocksdb_options_set_compression(options: Handle, compression: c_int);
    fn rocksdb_options_set_block_based_table_factory(options: Handle, table: Handle);
    fn rocksdb_block_based_options_create() -> Handle;
    fn rocksdb_block_based_options_set_filter_policy(table: Handle, policy: Handle);
    fn rocksdb_block_based_options_set_block_cache(table: Handle, cache: Handle);
    fn rocksdb_filterpolicy_create_bloom_full(bits_per_key: c_double) -> Handle;
    fn rocksdb_cache_create_lru(capacity: usize) -> Handle;
    fn rocksdb_open(options: Handle, name: *const c_char, error: *mut *mut c_char) -> Handle;
    fn rocksdb_close(db: Handle);
    fn rocksdb_readoptions_create() -> Handle;
    fn rocksdb_writeoptions_create() -> Handle;
    fn rocksdb_writeoptions_set_sync(options: Handle, sync: c_uchar);
    fn rocksdb_flushoptions_create() -> Handle;
    fn rocksdb_put(
        db: Handle,
        options: Handle,
        key: *const u8,
        key_len: usize,
        value: *const u8,
        value_len: usize,
        error: *mut *mut c_char,
    );
    fn rocksdb_delete(db: Handle, options: Handle, key: *const u8, key_len: usize, error: *mut *mut c_char);
    fn rocksdb_get_pinned(
        db: Handle,
        options: Handle,
        key: *const u8,
        key_len: usize,
        error: *mut *mut c_char,
    ) -> Handle;
    fn rocksdb_pinnableslice_value(slice: Handle, len: *mut usize) -> *const u8;
    fn rocksdb_pinnableslice_destroy(slice: Handle);
    fn rocksdb_writebatch_create() -> Handle;
    fn rocksdb_writebatch_put(batch: Handle, key: *const u8, key_len: usize, value: *const u8, value_len: usize);
    fn rocksdb_writebatch_destroy(batch: Handle);
    fn rocksdb_write(db: Handle, options: Handle, batch: Handle, error: *mut *mut c_char);
    fn rocksdb_create_iterator(db: Handle, options: Handle) -> Handle;
    fn rocksdb_iter_seek(iterator: Handle, key: *const u8, key_len: usize);
    fn rocksdb_iter_valid(iterator: Handle) -> c_uchar;
    fn rocksdb_iter_next(iterator: Handle);
    fn rocksdb_iter_key(iterator: Handle, len: *mut usize) -> *const u8;
    fn rocksdb_iter_value(iterator: Handle, len: *mut usize) -> *const u8;
    fn rocksdb_iter_get_error(iterator: Handle, error: *mut *mut c_char);
    fn rocksdb_iter_destroy(iterator: Handle);
    fn rocksdb_flush(db: Handle, options: Handle, error: *mut *mut c_char);
    fn rocksdb_compact_range(db: Handle, start: *const u8, start_len: usize, end: *const u8, end_len: usize);
    fn rocksdb_free(memory: *mut c_void);
}

struct Rocksdb {
    db: Handle,
    read: Handle,
    write: Handle,
    /// As for fjall: the C interface has a compare-and-swap in optimistic transactions only, which cost more.
    swaps: RwLock<()>,
}

// SAFETY: RocksDB's calls on an open database may be made from any thread; the options are not changed after `open`.
unsafe impl Send for Rocksdb {}
// SAFETY: the same.
unsafe impl Sync for Rocksdb {}

/// Calls, and turns the message that the call has left into an error.
fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T> {
    let mut message = null_mut();
    let done = call(&mut message);
    if message.is_null() {
        return Ok(done);
    }
    // SAFETY: the message is a C string that RocksDB has allocated for the caller.
    let error = unsafe {
        let text = CStr::from_ptr(message).to_string_lossy().into_owned();
        rocksdb_free(message.cast());
        text
    };
    Err(error.into())
}

fn open(path: &Path, mode: Mode) -> Result<Box<dyn Engine>> {
    let path = CString::new(path.join("store").as_os_str().as_bytes())?;
    // SAFETY: the call before returned each handle. The options are never freed: they live as long as the
    // process, which opens one store.
    unsafe {
        let table = rocksdb_block_based_options_create();
        rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10.0));
        rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(CACHE_BYTES));
        let options = rocksdb_options_create();
        rocksdb_options_set_create_if_missing(options, 1);
        rocksdb_options_set_compression(options, 0);
        rocksdb_options_set_block_based_table_factory(options, table);
        let write = rocksdb_writeoptions_create();
        rocksdb_writeoptions_set_sync(write, c_uchar::from(mode == Mode::Durable));
        let read = rocksdb_readoptions_create();
        let db = checked(|error| rocksdb_open(options, path.as_ptr(), error))?;
        Ok(Box::new(Rocksdb { db, read, write, swaps: RwLock::new(()) }))
    }
}

impl Rocksdb {
    fn set(&self, key: &[u8], value: &[u8]) -> Result<()> {
        // SAFETY: pointers and lengths are those of slices, which RocksDB copies.
        checked(|error| unsafe {
            rocksdb_put(self.db, self.write, key.as_ptr(), key.len(), value.as_ptr(), value.len(), error);
        })
    }
}

impl Drop for Rocksdb {
    fn drop(&mut self) {
        // SAFETY: no other thread has the handle any more.
        unsafe { rocksdb_close(self.db) }
    }
}

impl Engine for Rocksdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let _shared = self.swaps.read().unwrap_or_else(PoisonError::into_inner);
        self.set(key, value)
    }

    fn get(&self, key: &[u8], _: &mut Vec<u8>, seen: &mut dyn FnMut(&[u8])) -> Result<bool> {
        // SAFETY: pointer and length are those of a slice; a pinned value stays until it is destroyed.
        unsafe {
            let slice = checked(|error| rocksdb_get_pinned(self.db, self.read, key.as_ptr(), key.len(), error))?;
            if slice.is_null() {
                return Ok(false);
            }
            let mut len = 0;
            let value = rocksdb_pinnableslice_value(slice, &mut len);
            seen(std::slice::from_raw_parts(value, len));
            rocksdb_pinnableslice_destroy(slice);
        }
        Ok(true)
    }

    fn exists(&self, key: &[u8]) -> Result<bool> {
        self.get(key, &mut Vec::new(), &mut |_| ())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let _shared = self.swaps.read().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: pointer and length are those of a slice.
        checked(|error| unsafe { rocksdb_delete(self.db, self.write, key.as_ptr(), key.len(), error) })
    }

    fn swap(&self, key: &[u8], old: &[u8], new: &[u8]) -> Result<bool> {
        let _alone = self.swaps.write().unwrap_or_else(PoisonError::into_inner);
        let mut is_old = false;
        self.get(key, &mut Vec::new(), &mut |value| is_old = value == old)?;
        if is_old {
            self.set(key, new)?;
        }
        Ok(is_old)
    }

    fn load(&self, pairs: &Pairs) -> Result<()> {
        // SAFETY: pointers and lengths are those of slices, which the batch copies; the batch is freed once.
        unsafe {
            let batch = rocksdb_writebatch_create();
            for (key, value) in pairs.iter() {
                rocksdb_writebatch_put(batch, key.as_ptr(), key.len(), value.as_ptr(), value.len());
            }
            let done = checked(|error| rocksdb_write(self.db, self.write, batch, error));
            rocksdb_writebatch_destroy(batch);
            done
        }
    }

    fn list(&self, prefix: &[u8], seen: &mut dyn FnMut(&[u8], &[u8])) -> Result<()> {
        // SAFETY: key and value stay until the iterator moves.
        unsafe {
            let iterator = rocksdb_create_iterator(self.db, self.read);
            rocksdb_iter_seek(iterator, prefix.as_ptr(), prefix.len());
            while rocksdb_iter_valid(iterator) != 0 {
                let (mut key_len, mut value_len) = (0, 0);
                let key = rocksdb_iter_key(iterator, &mut key_len);
                let value = rocksdb_iter_value(iterator, &mut value_len);
                let key = std::slice::from_raw_parts(key, key_len);
                if !key.starts_with(prefix) {
                    break;
                }
                seen(key, std::slice::from_raw_parts(value, value_len));
                rocksdb_iter_next(iterator);
            }
            let done = checked(|error| rocksdb_iter_get_error(iterator, error));
            rocksdb_iter_destroy(iterator);
            done
        }
    }

    fn compact(self: Box<Self>, _: usize) -> Result<()> {
        // SAFETY: null pointers stand for the first and the last key.
        unsafe {
            checked(|error| rocksdb_flush(self.db, rocksdb_flushoptions_create(), error))?;
            rocksdb_compact_range(self.db, std::ptr::null(), 0, std::ptr::null(), 0);
        }
        self.close()
    }
}
