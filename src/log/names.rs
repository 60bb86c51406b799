//! The names of files beside a store: files being made, and torn tails that were kept.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::{Error, Result};

/// The kind of sibling that keeps a torn tail.
pub(super) const TORN: &str = "torn";
/// The kind of sibling that is a file being made: a new store, a copy, or a compacted successor.
pub(crate) const TEMPORARY: &str = "tmp";

/// The number of hexadecimal digits at the end of a sibling's name.
const DIGITS: usize = 16;

/// A longer store name goes into a sibling's name only in part. A sibling's name is 22 bytes longer and must fit into
/// 143 bytes, the shortest limit of a Linux file system (eCryptfs); most have 255.
const LONGEST_NAME: usize = 120;

/// A new name beside the store: `NAME.KIND-` and 16 random hexadecimal digits.
pub(crate) fn sibling(disk: &dyn Disk, path: &Path, kind: &str) -> Result<PathBuf> {
    let mut random = [0; 8];
    disk.system().fill_random(&mut random).map_err(|e| Error::io("get random bytes", path, e))?;
    Ok(sibling_with(path, kind, u64::from_le_bytes(random)))
}

/// A file being made tries this many names before one with random digits.
const FIRST_NAMES: u64 = 4;

/// The siblings of this kind whose digits are 0 to 3. A file being made has one of these names, unless that many makers
/// work on the same store. So four look-ups find a leftover in a directory of any size.
pub(crate) fn first_siblings<'p>(path: &'p Path, kind: &'p str) -> impl Iterator<Item = PathBuf> + 'p {
    (0..FIRST_NAMES).map(move |number| sibling_with(path, kind, number))
}

fn sibling_with(path: &Path, kind: &str, digits: u64) -> PathBuf {
    let mut name = sibling_prefix(path, kind);
    name.push(format!("{digits:0DIGITS$x}"));
    path.with_file_name(name)
}

/// The beginning of the names of all siblings of this kind.
///
/// A long name is replaced by its beginning and its checksum. Two stores whose names agree in both share their
/// siblings' names, which is harmless because a locked file is never removed.
pub(crate) fn sibling_prefix(path: &Path, kind: &str) -> OsString {
    let whole = path.file_name().unwrap_or_default();
    let mut name = whole.to_owned();
    if whole.len() > LONGEST_NAME {
        let checksum = format!("~{:08x}", crc32fast::hash(whole.as_bytes()));
        name = beginning(whole, LONGEST_NAME - checksum.len()).to_owned();
        name.push(checksum);
    }
    name.push(".");
    name.push(kind);
    name.push("-");
    name
}

/// The first `len` bytes of a name, or a few less: some file systems refuse incomplete UTF-8 characters.
fn beginning(name: &OsStr, mut len: usize) -> &OsStr {
    let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
    while len > 0 && is_continuation(name.as_bytes()[len]) {
        len -= 1;
    }
    OsStr::from_bytes(&name.as_bytes()[..len])
}

/// Whether `suffix` is what [`sibling`] puts after the prefix. A file with another suffix is a user's own, perhaps a
/// store.
pub(crate) fn is_sibling_suffix(suffix: &[u8]) -> bool {
    suffix.len() == DIGITS && suffix.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_knows_the_names_of_siblings() {
        use super::super::testing::page_says;

        for kind in [TORN, TEMPORARY] {
            assert!(page_says(&format!("`NAME.{kind}-` with {DIGITS} hexadecimal digits")), "{kind}");
        }
        let kept = LONGEST_NAME - "~01234567".len();
        assert!(page_says(&format!("The digits are a number from 0 to {}", FIRST_NAMES - 1)));
        assert!(page_says(&format!("Of a NAME of more than {LONGEST_NAME} bytes, the first {kept}")));
    }

    #[test]
    fn siblings_of_long_names_are_short_and_differ() {
        let longest = |last: &str| format!("/dir/{}{last}", "é".repeat(126));
        for kind in [TORN, TEMPORARY] {
            let [a, b] = ["aaa", "bbb"].map(|last| sibling_with(longest(last).as_ref(), kind, 0));
            assert_ne!(a, b, "{kind}");
            for sibling in [a, b] {
                // Valid UTF-8, like the store's name, and within eCryptfs' limit.
                let name = sibling.file_name().unwrap().to_str().unwrap();
                assert!(name.len() <= 143 && name.starts_with("ééé"), "{name}");
            }
        }
        let whole = "n".repeat(LONGEST_NAME);
        let prefix = sibling_prefix(whole.as_ref(), TEMPORARY);
        assert_eq!(prefix.to_str().unwrap(), format!("{whole}.tmp-"));
    }

    #[test]
    fn a_long_name_in_which_no_character_starts_has_siblings_too() {
        let name = OsStr::from_bytes(&[0x80; 255]);
        let prefix = sibling_prefix(Path::new(name), TEMPORARY);
        assert_eq!(prefix, OsString::from(format!("~{:08x}.tmp-", crc32fast::hash(&[0x80; 255]))));
    }

    #[test]
    fn a_name_like_a_siblings_is_not_one() {
        let disk = crate::disk::sim::SimDisk::new();
        let path = Path::new("/dir/store");
        let name = sibling(&disk, path, TEMPORARY).unwrap();
        assert_eq!(name.parent(), path.parent());
        let name = name.file_name().unwrap().to_str().unwrap().to_owned();
        let suffix = name.strip_prefix(sibling_prefix(path, TEMPORARY).to_str().unwrap()).unwrap();
        assert!(name.starts_with("store.tmp-") && is_sibling_suffix(suffix.as_bytes()));
        for other in ["", "backup", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF", "0123456789abcdeg"] {
            assert!(!is_sibling_suffix(other.as_bytes()), "{other}");
        }
    }
}
