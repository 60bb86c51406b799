//! The names of files beside a store: what is being made, and what was kept of a torn tail.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::disk::Disk;
use crate::{Error, Result};

/// What comes between the store's name and a random number in the name of a torn tail that was kept.
pub(super) const TORN: &str = "torn";
/// The same for a file that is being made: the store itself, or its compacted successor.
pub(crate) const TEMPORARY: &str = "tmp";

/// How many hexadecimal digits a sibling's name ends with.
const DIGITS: usize = 16;

/// The longest store name that goes into its siblings' names whole. A sibling's name is 22 bytes longer and has to fit
/// into 143 bytes, the shortest limit of a Linux file system (eCryptfs); most have 255.
const LONGEST_NAME: usize = 120;

/// A new name beside the store: `NAME.KIND-` and 16 random hexadecimal digits.
pub(crate) fn sibling(disk: &dyn Disk, path: &Path, kind: &str) -> Result<PathBuf> {
    let mut random = [0; 8];
    disk.system().fill_random(&mut random).map_err(|e| Error::io("get random bytes", path, e))?;
    Ok(sibling_with(path, kind, u64::from_le_bytes(random)))
}

/// How many names are tried for a file that is being made before one with random digits.
const FIRST_NAMES: u64 = 4;

/// The siblings of this kind whose digits are the numbers from 0 to 3. A file that is being made has one of these names
/// unless as many makers are at work on the same store. So four look-ups tell whether a killed process has left something,
/// in a directory of any size.
pub(crate) fn first_siblings<'p>(path: &'p Path, kind: &'p str) -> impl Iterator<Item = PathBuf> + 'p {
    (0..FIRST_NAMES).map(move |number| sibling_with(path, kind, number))
}

fn sibling_with(path: &Path, kind: &str, digits: u64) -> PathBuf {
    let mut name = sibling_prefix(path, kind);
    name.push(format!("{digits:0DIGITS$x}"));
    path.with_file_name(name)
}

/// What the names of all siblings of this kind start with.
///
/// Of a long name its beginning and its checksum stand for the whole. Two stores whose names agree in both share
/// their siblings' names. That does no harm, since nothing is removed that is locked.
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

/// The first `len` bytes of a name, or a few less: some file systems refuse a name with a part of a UTF-8 character.
fn beginning(name: &OsStr, mut len: usize) -> &OsStr {
    let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
    while len > 0 && is_continuation(name.as_bytes()[len]) {
        len -= 1;
    }
    OsStr::from_bytes(&name.as_bytes()[..len])
}

/// Whether what a name has behind such a prefix makes it one that [`sibling`] gives. Anything else there is somebody's
/// own file, another store perhaps.
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
                // As UTF-8, as the store's own name is, and within what eCryptfs allows.
                let name = sibling.file_name().unwrap().to_str().unwrap();
                assert!(name.len() <= 143 && name.starts_with("ééé"), "{name}");
            }
        }
        let whole = "n".repeat(LONGEST_NAME);
        let prefix = sibling_prefix(whole.as_ref(), TEMPORARY);
        assert_eq!(prefix.to_str().unwrap(), format!("{whole}.tmp-"));
    }

    #[test]
    fn what_only_looks_like_a_sibling_is_somebodys_own_file() {
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
