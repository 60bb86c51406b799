//! [`svg`]: files as an SVG, to scale, in rows as text is.
//!
//! It shows no key and no value, so that it can be given to others. Each class is one path, so that the picture stays small.
//! A file with too many pieces to see is drawn as a grid of cells, and in each cell the areas of the classes are to scale.

mod drawn;
mod paths;

use std::collections::BTreeMap;
use std::fmt::Write;

use caskfile::inspect::Class;

pub use drawn::{Drawn, row_bytes};
use paths::Paths;

use crate::numbers::{grouped, plural};

// In units of the picture.
const MARGIN: f64 = 24.0;
const LABELS: f64 = 110.0;
const ROW: f64 = 18.0;
const ROW_STEP: f64 = 28.0;
const LINE: f64 = 22.0;
const TOP: f64 = MARGIN + 3.0 * LINE;
/// The widths of the names in the legend, and of the numbers of each file.
const NAMES: f64 = 300.0;
const FIGURES: f64 = 200.0;

/// How the classes look. The colours are those of Okabe and Ito, which colour-blind people can distinguish, and broken
/// classes have a texture too.
const STYLE: &str = "\
svg{font:14px system-ui,sans-serif}\
.page{fill:#fff}.ink{fill:#1b1b1b}.faint{fill:#5a5a5a}.hatch{stroke:#1b1b1b}.strip{fill:none;stroke:#8a8a8a}\
.file_header{fill:#009e73}.roots{fill:#44aa99}.live{fill:#0072b2}.dead{fill:#e69f00}.tombstone{fill:#cc79a7}.statement{fill:#56b4e9}\
.snapshot{fill:#999933}\
.padding{fill:#9a9a9a}.end_mark{fill:#1b1b1b}.zeros{fill:#e6e6e6}\
.torn{fill:url(#torn)}.corrupt{fill:url(#corrupt)}.unread{fill:url(#unread)}\
@media(prefers-color-scheme:dark){.page{fill:#15171a}.ink{fill:#f0f0f0}.faint{fill:#b0b0b0}\
.end_mark{fill:#f0f0f0}.zeros{fill:#34373c}}";

const PATTERNS: &str = "\
<pattern id=\"torn\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
<path fill=\"#f0e442\" d=\"M0 0h6v6h-6z\"/><path class=\"hatch\" d=\"M-1 7L7 -1M-1 1L1 -1M5 7L7 5\"/></pattern>\
<pattern id=\"corrupt\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
<path fill=\"#d55e00\" d=\"M0 0h6v6h-6z\"/><path class=\"hatch\" d=\"M0 0L6 6M6 0L0 6\"/></pattern>\
<pattern id=\"unread\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
<path fill=\"#bdbdbd\" d=\"M0 0h6v6h-6z\"/><path class=\"hatch\" d=\"M0 3h6\"/></pattern>";

fn called(class: Class) -> &'static str {
    match class {
        Class::FileHeader => "file header",
        Class::Roots => "roots: how much was on stable storage",
        Class::Live => "live records",
        Class::Dead => "dead records (replaced or deleted)",
        Class::Tombstone => "tombstones",
        Class::Statement => "statements (marks and the like)",
        Class::Snapshot => "snapshots of the index",
        Class::Padding => "padding",
        Class::EndMark => "end mark",
        Class::Torn => "torn: the next writer cuts it off",
        Class::Corrupt => "corrupt",
        Class::Unread => "not read",
        Class::Zeros => "zeros, for what comes",
        _ => class.name(),
    }
}

/// An SVG that is being written.
struct Picture<'d> {
    files: &'d [Drawn],
    /// The width of a row.
    column: f64,
    text: String,
}

/// An SVG of files side by side, at one scale.
pub fn svg(files: &[Drawn]) -> String {
    let column = if files.len() == 1 { 800.0 } else { 520.0 };
    let mut picture = Picture { files, column, text: String::new() };
    picture.draw();
    picture.text
}

/// Writing to a string does not fail.
macro_rules! put {
    ($picture:expr, $($format:tt)*) => { let _ = write!($picture.text, $($format)*); };
}

impl Picture<'_> {
    fn draw(&mut self) {
        let rows = self.files.iter().map(Drawn::rows).max().unwrap_or(0);
        let legend = TOP + rows as f64 * ROW_STEP + 2.0 * LINE;
        let classes: Vec<Class> = Class::ALL.into_iter().filter(|class| self.has(*class)).collect();
        let files = self.files.len() as f64;
        let width = (MARGIN + files * (LABELS + self.column + MARGIN)).max(2.0 * MARGIN + NAMES + files * FIGURES);
        let height = legend + (classes.len() + 2) as f64 * LINE + MARGIN;
        put!(
            self,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\" aria-labelledby=\"title desc\">\n<title id=\"title\">{}</title>\n",
            escaped_xml(&self.title())
        );
        put!(self, "<desc id=\"desc\">{}</desc>\n", escaped_xml(&self.description()));
        put!(self, "<style>{STYLE}</style>\n<defs>{PATTERNS}</defs>\n");
        put!(self, "<path class=\"page\" d=\"M0 0h{width}v{height}h-{width}z\"/>\n");
        for (number, file) in self.files.iter().enumerate() {
            self.file(file, MARGIN + LABELS + number as f64 * (LABELS + self.column + MARGIN));
        }
        self.legend(&classes, legend);
        self.text.push_str("</svg>\n");
    }

    fn has(&self, class: Class) -> bool {
        self.files.iter().any(|file| file.totals.contains_key(&class))
    }

    fn title(&self) -> String {
        let names: Vec<&str> = self.files.iter().map(|file| file.name.as_str()).collect();
        format!("What the bytes are of {}", names.join(" and "))
    }

    fn description(&self) -> String {
        let files = self.files.iter().map(|file| {
            let totals =
                file.totals.iter().map(|(class, bytes)| format!("{}: {}", called(*class), figure(*bytes, file)));
            format!("{}, {}: {}.", file.name, plural(file.len, "byte"), totals.collect::<Vec<_>>().join("; "))
        });
        files.collect::<Vec<_>>().join(" ")
    }

    fn file(&mut self, file: &Drawn, left: f64) {
        let name = escaped_xml(&shortened(&file.name, self.column));
        put!(
            self,
            "<text class=\"ink\" font-weight=\"bold\" x=\"{left}\" y=\"{}\">{name}</text>\n",
            MARGIN + LINE / 2.0
        );
        let (len, row) = (plural(file.len, "byte"), grouped(file.row_bytes));
        let y = MARGIN + 1.5 * LINE;
        put!(self, "<text class=\"faint\" x=\"{left}\" y=\"{y}\">{len}; a row is {row}</text>\n");
        for row in 0..file.rows() {
            let (y, x) = (TOP + row as f64 * ROW_STEP + ROW * 0.75, left - 10.0);
            let offset = grouped(row * file.row_bytes);
            put!(self, "<text class=\"faint\" text-anchor=\"end\" x=\"{x}\" y=\"{y}\">{offset}</text>\n");
        }
        let mut paths = Paths { left, column: self.column, row_bytes: file.row_bytes, paths: BTreeMap::new() };
        match &file.pieces {
            Some(pieces) => pieces.iter().for_each(|(start, end, class)| paths.whole(*start, *end, *class)),
            None => paths.cells(&file.cells, file.cell_bytes()),
        }
        for (class, path) in &paths.paths {
            let (name, title) = (class.name(), called(*class));
            put!(self, "<path class=\"{name}\" d=\"{path}\"><title>{title}</title></path>\n");
        }
        put!(self, "<path class=\"strip\" d=\"{}\"/>\n", paths.outline(file.len));
        if !file.broken.is_empty() {
            let marks = paths.marks(&file.broken);
            put!(self, "<path class=\"ink\" d=\"{marks}\"><title>here something broken begins</title></path>\n");
        }
    }

    fn legend(&mut self, classes: &[Class], top: f64) {
        let (names, figures) = (MARGIN + 28.0, |number: usize| MARGIN + NAMES + (number + 1) as f64 * FIGURES);
        if self.files.len() > 1 {
            for (number, file) in self.files.iter().enumerate() {
                let (x, name) = (figures(number), escaped_xml(&shortened(&file.name, FIGURES)));
                put!(
                    self,
                    "<text class=\"ink\" font-weight=\"bold\" text-anchor=\"end\" x=\"{x}\" y=\"{top}\">{name}</text>\n"
                );
            }
        }
        let mut y = top;
        for class in classes {
            y += LINE;
            let (name, swatch) = (class.name(), y - 12.0);
            put!(self, "<path class=\"{name}\" d=\"M{MARGIN} {swatch}h18v14h-18z\"/>");
            put!(self, "<path class=\"strip\" d=\"M{MARGIN} {swatch}h18v14h-18z\"/>");
            put!(self, "<text class=\"ink\" x=\"{names}\" y=\"{y}\">{}</text>\n", called(*class));
            for (number, file) in self.files.iter().enumerate() {
                let (x, bytes) = (figures(number), file.totals.get(class).copied().unwrap_or(0));
                put!(
                    self,
                    "<text class=\"ink\" text-anchor=\"end\" x=\"{x}\" y=\"{y}\">{}</text>\n",
                    figure(bytes, file)
                );
            }
        }
        y += LINE;
        put!(self, "<text class=\"ink\" font-weight=\"bold\" x=\"{names}\" y=\"{y}\">all</text>\n");
        for (number, file) in self.files.iter().enumerate() {
            let (x, len) = (figures(number), plural(file.len, "byte"));
            put!(
                self,
                "<text class=\"ink\" font-weight=\"bold\" text-anchor=\"end\" x=\"{x}\" y=\"{y}\">{len}</text>\n"
            );
        }
    }
}

/// Bytes, and their percentage of the file.
fn figure(bytes: u64, file: &Drawn) -> String {
    let percent = 100.0 * bytes as f64 / file.len.max(1) as f64;
    let percent = match percent {
        _ if bytes == 0 => "0".to_owned(),
        _ if percent < 0.01 => "under 0.01".to_owned(),
        _ if percent < 10.0 => format!("{percent:.2}"),
        _ => format!("{percent:.0}"),
    };
    format!("{} ({percent} %)", plural(bytes, "byte"))
}

/// The beginning of a name that fits into `room`.
fn shortened(name: &str, room: f64) -> String {
    let most = (room / 10.0) as usize;
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['…']).collect()
}

fn escaped_xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML cannot have these.
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}
