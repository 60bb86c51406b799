//! Ratios: to the best peer, to the floor, to the aim.

use crate::engine::{Kind, Role};
use crate::engines;
use crate::results::Results;
use crate::rows::{Aim, Reference, Row};

/// One of caskfile's modes in one row.
pub struct Standing {
    pub engine: &'static str,
    pub figure: f64,
    pub peer: Option<(&'static str, f64)>,
    pub floor: Option<f64>,
    pub aims: Vec<Judged>,
}

impl Standing {
    /// Which of the ways to open caskfile this is; `None` for the one that is the default.
    pub fn mode(&self) -> Option<&'static str> {
        self.engine.strip_prefix("caskfile-")
    }

    pub fn to_peer(&self) -> Option<f64> {
        self.peer.and_then(|(_, peer)| self.ratio(peer))
    }

    fn ratio(&self, reference: f64) -> Option<f64> {
        (reference > 0.0).then(|| self.figure / reference)
    }

    /// What tables show, in this order: the figure, the best peer, the ratio to it, the floor, the ratio to that.
    pub fn cells(&self, row: &Row) -> [String; 5] {
        let absent = || "-".to_owned();
        [
            row.unit.show(self.figure),
            self.peer.map_or_else(absent, |(name, best)| format!("{name} {}", row.unit.show(best))),
            show_ratio(self.to_peer()),
            self.floor.map_or_else(absent, |floor| row.unit.show(floor)),
            show_ratio(self.floor.and_then(|floor| self.ratio(floor))),
        ]
    }
}

pub struct Judged {
    pub text: String,
    /// Unknown where what to compare with is missing.
    pub reached: Option<bool>,
}

impl Judged {
    pub fn verdict(&self) -> &'static str {
        match self.reached {
            Some(true) => "reached",
            Some(false) => "missed",
            None => "not known",
        }
    }
}

pub fn standings(results: &Results, row: &Row) -> Vec<Standing> {
    let ours = engines::all().into_iter().filter(|kind| kind.role == Role::Ours && is_shown(row, kind));
    ours.filter_map(|kind| {
        let figure = results.median(row.id, kind.name)?;
        Some(Standing {
            engine: kind.name,
            figure,
            peer: best_peer(results, row),
            floor: floor(results, row),
            aims: row
                .aims
                .iter()
                .filter(|aim| aim.of == kind.name)
                .map(|aim| judge(results, row, aim, figure))
                .collect(),
        })
    })
    .collect()
}

/// The special ways to open caskfile are shown only in rows that have an aim for them.
pub fn is_shown(row: &Row, kind: &Kind) -> bool {
    let is_special = ["caskfile-mapped", "caskfile-unverified", "caskfile-automatic"].contains(&kind.name);
    !is_special || row.aims.iter().any(|aim| aim.of == kind.name)
}

pub fn best_peer(results: &Results, row: &Row) -> Option<(&'static str, f64)> {
    let peers = engines::all().into_iter().filter(|kind| kind.role == Role::Peer);
    let figures = peers.filter_map(|kind| Some((kind.name, results.median(row.id, kind.name)?)));
    figures.reduce(|best, other| if (other.1 > best.1) == row.unit.more_is_better() { other } else { best })
}

fn floor(results: &Results, row: &Row) -> Option<f64> {
    results.median(row.id, row.floor?)
}

fn judge(results: &Results, row: &Row, aim: &Aim, figure: f64) -> Judged {
    let (reference, name) = match aim.than {
        Reference::BestPeer => (best_peer(results, row).map(|(_, best)| best), " × the best peer".to_owned()),
        Reference::Peer(peer) => (results.median(row.id, peer), format!(" × {peer}")),
        Reference::Floor => (floor(results, row), " × the floor".to_owned()),
        Reference::Row(other) => (results.median(other, aim.of), format!(" × {other}")),
        Reference::Nothing => (Some(1.0), String::new()),
    };
    let bound = match row.unit.more_is_better() {
        true => "at least",
        false => "at most",
    };
    let factor = match aim.than {
        Reference::Nothing => row.unit.show(aim.factor),
        _ => aim.factor.to_string(),
    };
    let limit = reference.map(|reference| aim.factor * reference);
    let reached = limit.map(|limit| if row.unit.more_is_better() { figure >= limit } else { figure <= limit });
    Judged { text: format!("{bound} {factor}{name}"), reached }
}

/// Writes a figure with two significant digits.
pub fn show_ratio(ratio: Option<f64>) -> String {
    match ratio {
        None => "-".to_owned(),
        Some(ratio @ 10.0..) => format!("{ratio:.0}"),
        Some(ratio @ 0.1..) => format!("{ratio:.2}"),
        Some(ratio) => format!("{ratio:.3}"),
    }
}
