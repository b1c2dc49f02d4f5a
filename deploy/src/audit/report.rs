//! What the comparison with the log found, for people and programs.

use std::fmt;

use serde::Serialize;

/// Differences told in words, for the whole report.
const EXAMPLES: usize = 40;

/// One partition of `footfall.events`. Counts are rows, lines or minutes; offsets are those compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PartitionReport {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
    /// What the log makes of its lines.
    pub lines: u64,
    pub rows: u64,
    pub duplicates: u64,
    pub dead: u64,
    /// Rows that are not stored.
    pub missing: u64,
    /// Places that hold a row several times, or another event's.
    pub doubled: u64,
    /// Rows stored where the log makes none.
    pub foreign: u64,
    /// Rows are stored beyond the log's end: it is another log.
    pub beyond: bool,
    /// Dead letters that are not stored, and stored ones that the log does not make.
    pub dead_missing: u64,
    pub dead_foreign: u64,
    /// Minutes whose rows were held against the rolling counts; those left out because they are still being counted.
    pub minutes: u64,
    pub minutes_open: u64,
    pub minutes_differ: u64,
}

impl PartitionReport {
    pub fn is_clean(&self) -> bool {
        let wrong = [
            self.missing,
            self.doubled,
            self.foreign,
            self.dead_missing,
            self.dead_foreign,
            self.minutes_differ,
        ];
        self.adds_up() && !self.beyond && wrong.iter().all(|count| *count == 0)
    }

    fn adds_up(&self) -> bool {
        self.lines == self.rows + self.duplicates + self.dead
    }
}

/// All partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LogReport {
    pub partitions: Vec<PartitionReport>,
    /// Some of the differences, in words.
    pub examples: Vec<String>,
}

impl LogReport {
    pub fn is_clean(&self) -> bool {
        self.partitions.iter().all(PartitionReport::is_clean)
    }

    pub(super) fn tell(&mut self, example: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(example());
        }
    }
}

/// What `--repair` did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Repairs {
    pub inserted: u64,
    /// Places whose rows were deleted; those that the log makes were inserted again.
    pub deleted: u64,
    pub letters_inserted: u64,
    pub minutes_recounted: u64,
    /// What was left as it is, and why.
    pub refused: Vec<String>,
}

/// Everything the command has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// In the end.
    pub clean: bool,
    pub found: LogReport,
    pub repairs: Option<Repairs>,
    /// The comparison repeated after a repair.
    pub after: Option<LogReport>,
}

impl fmt::Display for PartitionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, from, to, lines, rows, duplicates, dead, .. } = self;
        let equal = if self.adds_up() { "=" } else { "≠" };
        writeln!(
            f,
            "partition {partition}, offsets {from} to {to}: {lines} lines {equal} {rows} rows + {duplicates} duplicates \
             + {dead} dead"
        )?;
        writeln!(f, "  rows: {} missing, {} doubled, {} foreign", self.missing, self.doubled, self.foreign)?;
        if self.beyond {
            writeln!(f, "  rows are stored beyond the log's end: the tables are of another log")?;
        }
        if self.dead_missing + self.dead_foreign > 0 {
            writeln!(f, "  dead letters: {} missing, {} foreign", self.dead_missing, self.dead_foreign)?;
        }
        writeln!(
            f,
            "  rolling counts: {} of {} minutes differ ({} more are still being counted)",
            self.minutes_differ, self.minutes, self.minutes_open
        )
    }
}

impl fmt::Display for LogReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.partitions.iter().try_for_each(|partition| partition.fmt(f))?;
        self.examples.iter().try_for_each(|example| writeln!(f, "    {example}"))
    }
}

impl fmt::Display for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "repaired: {} rows inserted, {} places cleared, {} dead letters inserted, {} minutes counted again",
            self.inserted, self.deleted, self.letters_inserted, self.minutes_recounted
        )?;
        self.refused.iter().try_for_each(|reason| writeln!(f, "  not repaired: {reason}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.found.fmt(f)?;
        if let (Some(repairs), Some(after)) = (&self.repairs, &self.after) {
            write!(f, "{repairs}compared again:\n{after}")?;
        }
        writeln!(f, "{}", if self.clean { "clean" } else { "NOT clean" })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn right() -> PartitionReport {
        PartitionReport { lines: 6, rows: 3, duplicates: 2, dead: 1, ..PartitionReport::default() }
    }

    #[rstest]
    #[case::right(right(), true)]
    #[case::open_minutes(PartitionReport { minutes: 3, minutes_open: 2, ..right() }, true)]
    #[case::a_line_lost(PartitionReport { lines: 7, ..right() }, false)]
    #[case::missing(PartitionReport { missing: 1, ..right() }, false)]
    #[case::doubled(PartitionReport { doubled: 1, ..right() }, false)]
    #[case::foreign(PartitionReport { foreign: 1, ..right() }, false)]
    #[case::beyond(PartitionReport { beyond: true, ..right() }, false)]
    #[case::letters_missing(PartitionReport { dead_missing: 1, ..right() }, false)]
    #[case::letters_foreign(PartitionReport { dead_foreign: 1, ..right() }, false)]
    #[case::counts(PartitionReport { minutes_differ: 1, ..right() }, false)]
    fn a_report_is_clean_when_nothing_differs(#[case] partition: PartitionReport, #[case] clean: bool) {
        let report = LogReport { partitions: vec![right(), partition], examples: Vec::new() };
        assert_eq!(report.is_clean(), clean);
    }

    #[test]
    fn examples_are_bounded() {
        let mut report = LogReport::default();
        (0..2 * EXAMPLES).for_each(|number| report.tell(|| number.to_string()));
        assert_eq!(report.examples.len(), EXAMPLES);
    }
}
