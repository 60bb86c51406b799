//! `explore`, as far as no browser is needed: `tests/explore/run` looks at the page.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::golden;
use super::run::Shell;

/// Where the file's identity stands, as `docs/FORMAT.md` has it.
const FILE_ID: std::ops::Range<usize> = 16..32;

fn shell_with_a_store() -> Shell {
    let shell = Shell::new();
    shell.ok(&["put", "s", "key", "value"]);
    shell
}

/// The bytes in a page's script of this name.
fn script<'p>(page: &'p str, name: &str) -> &'p str {
    let (_, script) = page.split_once(&format!(" id=\"{name}\">")).unwrap();
    script.split_once("</script>").unwrap().0
}

#[test]
fn a_page_replaces_no_file_and_is_private() {
    let shell = shell_with_a_store();
    shell.ok(&["explore", "s", "-o", "page.html"]);
    let page = shell.directory.join("page.html");
    assert_eq!(fs::metadata(&page).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(shell.fails(8, &["explore", "s", "-o", "page.html"]).contains("no file is ever replaced"));
    let store = fs::read(shell.directory.join("s")).unwrap();
    shell.fails(8, &["explore", "s", "-o", "s"]);
    assert_eq!(fs::read(shell.directory.join("s")).unwrap(), store);
}

#[test]
fn a_page_to_a_full_disk_is_an_error() {
    let shell = shell_with_a_store();
    let page = shell.ok_text(&["explore", "s"]);
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(shell.command(&["explore", "s"]).stdout(full).status().unwrap().code(), Some(8));
}

#[test]
fn the_page_holds_the_bytes_once_without_the_identity() {
    let shell = shell_with_a_store();
    let store = fs::read(shell.directory.join("s")).unwrap();
    let page = shell.ok_text(&["explore", "s"]);
    let bytes = STANDARD.decode(script(&page, "bytes")).unwrap();
    assert_eq!(bytes, [&store[..FILE_ID.start], &store[FILE_ID.end..]].concat());
    for name in ["facts", "pieces", "bytes"] {
        assert!(!script(&page, name).contains('<'), "{name}");
    }
}

#[test]
fn a_store_in_any_state_has_a_page() {
    let shell = Shell::new();
    for golden in golden::all() {
        let Some(page) = golden.shown(&shell, &["explore"]) else { continue };
        let bytes = STANDARD.decode(script(&page, "bytes")).unwrap();
        assert_eq!(bytes, [&golden.bytes[..FILE_ID.start], &golden.bytes[FILE_ID.end..]].concat(), "{}", golden.name);
    }
    shell.fails(8, &["explore", "absent"]);
    shell.fails(2, &["explore", "absent", "--hold", "0"]);
    shell.fails(2, &["explore", "absent", "--json"]);
}

#[test]
fn a_damaged_file_has_a_page_too() {
    let shell = Shell::new();
    let damaged = golden::named("damaged-twice").path;
    let said = shell.fails(5, &["explore", damaged.to_str().unwrap(), "-o", "page.html"]);
    assert!(said.contains("caskfile salvage"), "{said}");
    assert!(fs::read_to_string(shell.directory.join("page.html")).unwrap().ends_with("</html>\n"));
}
