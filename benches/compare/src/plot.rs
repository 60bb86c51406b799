//! Bars, one panel for each row: an SVG for a group of rows.

use std::fmt::Write;

use crate::engine::Role;
use crate::engines;
use crate::judge::is_shown;
use crate::results::Results;
use crate::rows::{Group, Row};

const WIDTH: u32 = 760;
const LEFT: u32 = 170;
const BAR_SPACE: u32 = 450;
const LINE: u32 = 18;
const TITLE: u32 = 26;
const GAP: u32 = 14;

struct Bar {
    name: &'static str,
    role: Role,
    figure: f64,
}

/// Returns `None` if no engine has a figure in any row.
pub fn group(results: &Results, group: &Group) -> Option<String> {
    let panels: Vec<_> =
        group.rows.iter().map(|row| (row, bars(results, row))).filter(|(_, bars)| !bars.is_empty()).collect();
    if panels.is_empty() {
        return None;
    }
    let mut body = String::new();
    let mut y = GAP;
    for (row, bars) in &panels {
        panel(&mut body, row, bars, y);
        y += TITLE + LINE * bars.len() as u32 + GAP;
    }
    let label = group.title;
    Some(format!(
        concat!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {y}\" width=\"{width}\" height=\"{y}\" ",
            "font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"{label}\">\n",
            "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{body}</svg>\n"
        ),
        width = WIDTH,
        y = y,
        label = label,
        body = body
    ))
}

/// The best first.
fn bars(results: &Results, row: &Row) -> Vec<Bar> {
    let shown = engines::all().into_iter().filter(|kind| is_shown(row, kind));
    let figures = shown
        .filter_map(|kind| Some(Bar { name: kind.name, role: kind.role, figure: results.median(row.id, kind.name)? }));
    let mut bars: Vec<Bar> = figures.collect();
    bars.sort_by(|one, other| match row.unit.more_is_better() {
        true => other.figure.total_cmp(&one.figure),
        false => one.figure.total_cmp(&other.figure),
    });
    bars
}

fn panel(svg: &mut String, row: &Row, bars: &[Bar], top: u32) {
    let better = if row.unit.more_is_better() { "longer is better" } else { "shorter is better" };
    let most = bars.iter().map(|bar| bar.figure).fold(f64::MIN_POSITIVE, f64::max);
    line(
        svg,
        format_args!(
            "<text x=\"8\" y=\"{}\" font-weight=\"600\">{}<tspan fill=\"#868e96\" font-weight=\"400\"> · {better}</tspan></text>",
            top + 14,
            row.title
        ),
    );
    for (bar, y) in bars.iter().zip((top + TITLE..).step_by(LINE as usize)) {
        let (fill, stroke, text) = match bar.role {
            Role::Ours => ("#e8590c", "#e8590c", "#d9480f"),
            Role::Peer => ("#91a7c4", "#91a7c4", "#343a40"),
            Role::Floor => ("none", "#868e96", "#868e96"),
        };
        let length = (bar.figure / most * f64::from(BAR_SPACE)).max(1.0);
        let middle = y + 10;
        line(
            svg,
            format_args!(
                "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\" fill=\"{text}\">{}</text>",
                LEFT - 8,
                bar.name
            ),
        );
        line(
            svg,
            format_args!(
                "<rect x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"12\" fill=\"{fill}\" stroke=\"{stroke}\"/>",
                y
            ),
        );
        line(
            svg,
            format_args!(
                "<text x=\"{:.1}\" y=\"{middle}\" fill=\"{text}\">{}</text>",
                f64::from(LEFT) + length + 6.0,
                row.unit.show(bar.figure)
            ),
        );
    }
}

fn line(svg: &mut String, text: std::fmt::Arguments) {
    writeln!(svg, "{text}").expect("a String takes all");
}
