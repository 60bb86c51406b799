//! Copies are private until they have the owner of what they are a copy of.

use std::io;

use crate::disk::DiskFile;

/// Permission bits of a file that is to have those of another one, until it has that one's owner as well: before that,
/// the group's bits would speak of the wrong group.
pub(crate) const PRIVATE: u32 = 0o600;

/// Gives a copy that was created with [`PRIVATE`] the owner and mode of what it is a copy of.
///
/// Where these cannot be had it stays private: the mode alone would speak of another group. So does the copy of a file with
/// an ACL: what that allows was meant for the one file, and a copy may be in a place that others can reach.
pub(crate) fn give_to_owner(copy: &dyn DiskFile, source: &dyn DiskFile) -> io::Result<()> {
    // A default ACL of the directory allows nothing yet, but would as soon as somebody changes the mode.
    copy.set_attributes(&copy.attributes()?.without_extended())?;
    match source.attributes() {
        Ok(source) if !source.has_acl() => drop(copy.set_attributes(&source.without_extended())),
        _ => {}
    }
    Ok(())
}
