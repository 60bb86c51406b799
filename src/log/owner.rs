//! The owner and mode of a copy. A copy is private until it has the owner of its source.

use std::io;

use crate::disk::DiskFile;

/// Permission bits of a copy before it has its source's owner. The source's bits would speak of the wrong group until
/// then.
pub(crate) const PRIVATE: u32 = 0o600;

/// Gives a copy that was created with [`PRIVATE`] the owner and mode of its source.
///
/// The copy stays private if the owner cannot be set, because the mode alone would speak of another group. It also
/// stays private if the source has an ACL: the ACL was meant for that one file, and the copy may be in a place that
/// other users can reach.
pub(crate) fn give_to_owner(copy: &dyn DiskFile, source: &dyn DiskFile) -> io::Result<()> {
    // The directory's default ACL allows nothing yet, but would as soon as a user changes the mode.
    copy.set_attributes(&copy.attributes()?.without_extended())?;
    match source.attributes() {
        Ok(source) if !source.has_acl() => drop(copy.set_attributes(&source.without_extended())),
        _ => {}
    }
    Ok(())
}
