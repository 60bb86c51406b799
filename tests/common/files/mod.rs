//! The bytes of files: a reader made from docs/FORMAT.md, and files that are made, taken apart, damaged and forged. Nothing
//! here uses the library's own knowledge of the format.

pub mod anatomy;
pub mod bytes;
pub mod cases;
pub mod forge;
pub mod layout;
pub mod library;
pub mod life;
pub mod oracle;
pub mod owners;
pub mod page;
pub mod reader;
pub mod seal;
pub mod snapshot;
