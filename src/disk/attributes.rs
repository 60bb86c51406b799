//! What a file has besides its bytes: owner, permissions, and extended attributes, one of which is the ACL.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

/// Extended attributes by name.
pub type Extended = BTreeMap<CString, Vec<u8>>;

/// A file's owner, permissions and extended attributes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileAttributes {
    /// Permission bits, without the file type. If the file has an ACL, the group's bits are the ACL's mask.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Extended attributes, except those that belong to one file's bytes.
    pub extended: Extended,
}

/// The attribute that holds a POSIX access ACL, in the form that Linux uses.
pub(crate) const ACL: &CStr = c"system.posix_acl_access";

impl FileAttributes {
    /// Returns whether there is an ACL. Then the permission bits alone would give the ACL's mask to the owning group.
    pub fn has_acl(&self) -> bool {
        self.extended.contains_key(ACL)
    }

    /// Returns owner and permission bits alone.
    #[must_use]
    pub fn without_extended(self) -> FileAttributes {
        FileAttributes { extended: Extended::new(), ..self }
    }

    /// Returns the attributes that another file must have to be as usable by the same users.
    pub(crate) fn required(&self) -> FileAttributes {
        let mut required = self.clone();
        required.extended.retain(|name, _| !is_label(name));
        required
    }
}

/// Returns whether the system's policy (SELinux, for example) gives every file this attribute. A process may not be allowed
/// to set it, so a failure to set it is ignored.
pub(crate) fn is_label(name: &CStr) -> bool {
    name.to_bytes().starts_with(b"security.")
}
