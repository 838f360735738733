//! Rows, the table, the file, and the little arithmetic between. `ratio` is always ours divided by theirs; whether it is to be
//! large or small, the goal of the row says. Left out: any statistics beyond a median and its range.

use crate::Result;
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// What several rounds gave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Figure {
    /// `None` when nothing was measured.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self {
            median,
            least,
            most,
        })
    }

    /// A count, which has no rounds.
    pub(crate) fn exactly(value: f64) -> Self {
        Self {
            median: value,
            least: value,
            most: value,
        }
    }
}

/// What a row promises.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    RatioAtLeast(f64),
    RatioAtMost(f64),
    /// Ours minus theirs, in the unit of the row.
    ExcessAtMost(f64),
    /// Ours equals theirs.
    Equal,
    /// Ours is nothing.
    Zero,
    /// For the reader only.
    None,
}

impl Goal {
    fn met(self, ours: f64, theirs: f64) -> Option<bool> {
        match self {
            Self::RatioAtLeast(least) => Some(ours / theirs >= least),
            Self::RatioAtMost(most) => Some(ours / theirs <= most),
            Self::ExcessAtMost(most) => Some(ours - theirs <= most),
            Self::Equal => Some(ours == theirs),
            Self::Zero => Some(ours == 0.0),
            Self::None => None,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RatioAtLeast(least) => write!(f, "ratio >= {least:.2}"),
            Self::RatioAtMost(most) => write!(f, "ratio <= {most:.2}"),
            Self::ExcessAtMost(most) => write!(f, "ours - theirs <= {most}"),
            Self::Equal => f.write_str("ours = theirs"),
            Self::Zero => f.write_str("ours = 0"),
            Self::None => Ok(()),
        }
    }
}

/// One comparison. A side that was not measured is `None`, and then nothing is claimed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: Option<f64>,
    pub(crate) theirs: Option<f64>,
    pub(crate) ratio: Option<f64>,
    pub(crate) goal: String,
    pub(crate) met: Option<bool>,
    /// The rounds' range, by which a reader sees what the medians are worth.
    pub(crate) ours_range: Option<[f64; 2]>,
    pub(crate) theirs_range: Option<[f64; 2]>,
}

impl Row {
    pub(crate) fn new(
        what: impl Into<String>,
        unit: &'static str,
        ours: Option<Figure>,
        theirs: Option<Figure>,
        goal: Goal,
    ) -> Self {
        let both = ours.zip(theirs);
        let both = both.map(|(ours, theirs)| (ours.median, theirs.median));
        let ratio = both.map(|(ours, theirs)| ours / theirs);
        let range = |figure: Figure| [figure.least, figure.most];
        Self {
            what: what.into(),
            unit,
            ours: ours.map(|ours| ours.median),
            theirs: theirs.map(|theirs| theirs.median),
            // Nothing divided by nothing is no figure, and no JSON either.
            ratio: ratio.filter(|ratio| ratio.is_finite()),
            goal: goal.to_string(),
            met: both.and_then(|(ours, theirs)| goal.met(ours, theirs)),
            ours_range: ours.map(range),
            theirs_range: theirs.map(range),
        }
    }
}

/// Everything of one bench, and what its figures depend on.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) bench: &'static str,
    /// Who played our part: `ours`, or a stand-in.
    pub(crate) ours: &'static str,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) cores: usize,
    /// `release`, or the figures are worth nothing.
    pub(crate) profile: &'static str,
    /// The machine's load before the bench: what others did beside it.
    pub(crate) load_before: Option<f64>,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let header = ["what", "unit", "ours", "theirs", "ratio", "goal", "met"];
        let mut lines = vec![header.map(str::to_owned)];
        lines.extend(self.rows.iter().map(|row| {
            [
                row.what.clone(),
                row.unit.to_owned(),
                cell(row.ours),
                cell(row.theirs),
                row.ratio.map_or("-".into(), |ratio| format!("{ratio:.3}")),
                row.goal.clone(),
                row.met
                    .map_or("-", |met| if met { "yes" } else { "NO" })
                    .into(),
            ]
        }));
        let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
        let widths: [usize; 7] = std::array::from_fn(|column| width(column).unwrap_or(0));
        let mut table = format!(
            "\n{} (ours: {}): {} rounds, {} s each, {} cores, {}, load before {}\n",
            self.bench,
            self.ours,
            self.rounds,
            self.seconds,
            self.cores,
            self.profile,
            cell(self.load_before),
        );
        for line in &lines {
            for (column, cell) in line.iter().enumerate() {
                let width = widths[column];
                table += &match column {
                    2..=4 => format!("{cell:>width$}  "),
                    _ => format!("{cell:<width$}  "),
                };
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        table
    }

    /// Writes `<folder>/<bench>.json`.
    pub(crate) fn write(&self, folder: &Path) -> Result<PathBuf> {
        std::fs::create_dir_all(folder)?;
        let file = folder.join(format!("{}.json", self.bench));
        std::fs::write(&file, serde_json::to_vec_pretty(self)?)?;
        Ok(file)
    }
}

/// Few digits for large figures, more for small ones.
fn cell(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value.abs() >= 1_000.0 || value.fract() == 0.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Figure, Goal, Report, Row};

    fn row(ours: f64, theirs: f64, goal: Goal) -> Row {
        let (ours, theirs) = (Figure::exactly(ours), Figure::exactly(theirs));
        Row::new("a", "b", Some(ours), Some(theirs), goal)
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_middles() {
        assert_eq!(Figure::of(&[]), None);
        let figure = Figure::of(&[5.0, 1.0, 3.0]).expect("three");
        assert_eq!((figure.least, figure.median, figure.most), (1.0, 3.0, 5.0));
        assert_eq!(Figure::of(&[4.0, 1.0, 2.0, 9.0]).expect("four").median, 3.0);
        assert_eq!(Figure::of(&[7.0]), Some(Figure::exactly(7.0)));
    }

    #[test]
    fn a_ratio_is_ours_by_theirs_and_the_goal_gives_the_direction() {
        let slower = row(90.0, 100.0, Goal::RatioAtLeast(0.95));
        assert_eq!((slower.ratio, slower.met), (Some(0.9), Some(false)));
        assert_eq!(row(96.0, 100.0, Goal::RatioAtLeast(0.95)).met, Some(true));
        assert_eq!(row(1.3, 1.0, Goal::RatioAtMost(1.3)).met, Some(true));
        assert_eq!(row(1.31, 1.0, Goal::RatioAtMost(1.3)).met, Some(false));
        assert_eq!(row(5.0, 3.0, Goal::ExcessAtMost(2.0)).met, Some(true));
        assert_eq!(row(5.1, 3.0, Goal::ExcessAtMost(2.0)).met, Some(false));
        assert_eq!(row(4.0, 5.0, Goal::Equal).met, Some(false));
        assert_eq!(row(0.0, 5.0, Goal::Zero).met, Some(true));
        assert_eq!(row(1.0, 5.0, Goal::None).met, None);
    }

    #[test]
    fn what_was_not_measured_meets_nothing() {
        let theirs = Some(Figure::exactly(1.0));
        let row = Row::new("a", "b", None, theirs, Goal::RatioAtLeast(0.0));
        assert_eq!((row.ours, row.ratio, row.met), (None, None, None));
        assert_eq!(self::row(0.0, 0.0, Goal::Zero).ratio, None);
    }

    #[test]
    fn the_file_holds_what_the_table_shows() {
        let report = Report {
            bench: "example",
            ours: "ours",
            rounds: 5,
            seconds: 1.0,
            cores: 2,
            profile: "release",
            load_before: Some(0.5),
            rows: vec![row(90.0, 100.0, Goal::RatioAtLeast(0.95))],
        };
        assert!(report.table().contains("0.900  ratio >= 0.95  NO"));
        let folder = tempfile::tempdir().expect("a folder");
        let file = report.write(folder.path()).expect("writable");
        assert!(file.ends_with("example.json"));
        let text = std::fs::read(file).expect("written");
        let json: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(json["rows"][0]["ratio"], 0.9);
        assert_eq!(json["rows"][0]["met"], false);
    }
}
