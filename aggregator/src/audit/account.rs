//! What became of the lines of the log: a pure function of it, part of a partition's state.

use std::{collections::VecDeque, ops::Sub};

use footfall_schemas::time::{MINUTE_MS, minute_of};
use serde::{Deserialize, Serialize};

/// Marks kept: whoever takes a partition over audits again what its last owner may not have.
const MARKS: usize = 10;

/// Lines of records, and what they became.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    pub lines: u64,
    pub rows: u64,
    pub duplicates: u64,
    pub dead: u64,
}

impl Account {
    pub fn is_balanced(&self) -> bool {
        self.lines == self.rows + self.duplicates + self.dead
    }
}

impl Sub for Account {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            lines: self.lines - earlier.lines,
            rows: self.rows - earlier.rows,
            duplicates: self.duplicates - earlier.duplicates,
            dead: self.dead - earlier.dead,
        }
    }
}

/// The account of the records before an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    pub(crate) offset: i64,
    pub(crate) account: Account,
}

/// The account since the state began, and as it was at the first record of each of the last minutes of log time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Books {
    account: Account,
    marks: VecDeque<(i64, Checkpoint)>,
}

impl Books {
    /// `account`: of the record at `offset` alone; `log_time` (ms) with it.
    pub(crate) fn add(&mut self, offset: i64, log_time: i64, account: Account) {
        let minute = minute_of(log_time);
        if self.marks.back().is_none_or(|(newest, _)| *newest + MINUTE_MS <= minute) {
            self.marks.push_back((minute, Checkpoint { offset, account: self.account }));
            if self.marks.len() > MARKS {
                self.marks.pop_front();
            }
        }
        self.account.lines += account.lines;
        self.account.rows += account.rows;
        self.account.duplicates += account.duplicates;
        self.account.dead += account.dead;
    }

    pub(crate) fn account(&self) -> Account {
        self.account
    }

    /// From where whoever takes the partition over audits: some minutes of log time ago.
    pub(crate) fn oldest(&self) -> Option<Checkpoint> {
        self.marks.front().map(|(_, checkpoint)| *checkpoint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_row() -> Account {
        Account { lines: 1, rows: 1, ..Account::default() }
    }

    #[test]
    fn the_oldest_mark_lies_ten_minutes_of_log_time_back() {
        let mut books = Books::default();
        assert_eq!(books.oldest(), None);
        // Two records a minute, the second later than the first by less than one.
        for offset in 0..60 {
            books.add(offset, offset * MINUTE_MS / 2, one_row());
        }
        let oldest = books.oldest().unwrap();
        assert_eq!((oldest.offset, oldest.account.rows), (40, 40));
        assert_eq!((books.account() - oldest.account).rows, 20);
    }

    #[test]
    fn an_account_balances_when_every_line_became_something() {
        let account = Account { lines: 6, rows: 3, duplicates: 2, dead: 1 };
        assert!(account.is_balanced());
        assert!(!Account { lines: 7, ..account }.is_balanced());
    }
}
