//! `map`.

use std::io::Write;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::failure::Result;
use crate::look::{Look, finish, refuse_json};
use crate::picture::{Drawn, row_bytes, svg};
use crate::session::{Session, stdout_failure};

/// Draw the file to scale, as an SVG on stdout: what is live, dead, torn, corrupt and so on
///
/// With a second file the two are side by side, at one scale: a store, for example, and its `caskfile backup --compact`.
/// The picture has no keys and no values. After it is drawn, damage ends with exit code 5, a later version with 6.
#[derive(clap::Args)]
pub struct Map {
    #[command(flatten)]
    look: Look,
    /// A second file, beside the first
    #[arg(value_name = "OTHER", value_hint = clap::ValueHint::FilePath)]
    other: Option<PathBuf>,
}

impl Map {
    pub fn run(self, session: &Session) -> Result<Exit> {
        refuse_json(session, "map draws an SVG only")?;
        session.refuse_terminal("an SVG", "send it to a file or a pipe")?;
        let looks: Vec<Look> =
            [Some(self.look), self.other.map(|store| Look { store })].into_iter().flatten().collect();
        let mut inspections = Vec::new();
        for look in &looks {
            inspections.push(look.open(session)?);
        }
        let longest = inspections.iter().map(caskfile::inspect::Inspection::file_len).max();
        let row_bytes = row_bytes(longest.unwrap_or_default());
        let mut drawn = Vec::new();
        for (look, inspection) in looks.iter().zip(&inspections) {
            let name = look.store.file_name().unwrap_or(look.store.as_os_str()).to_string_lossy().into_owned();
            let mut file = Drawn::new(name, inspection.file_len(), row_bytes);
            for piece in inspection.pieces() {
                file.add(&piece?);
            }
            drawn.push(file);
        }
        let mut output = session.output()?;
        output.write_all(svg(&drawn).as_bytes()).and_then(|()| output.flush()).map_err(stdout_failure)?;
        for (look, inspection) in looks.iter().zip(&inspections) {
            finish(&look.store, inspection)?;
        }
        Ok(Exit::Done)
    }
}
