//! Tables in Markdown, and the file that keeps them: a section a bench, replaced when that bench runs again.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The file, and what stands above its sections when it is made.
#[derive(Debug)]
pub struct Results {
    file: PathBuf,
    head: &'static str,
}

/// Rows of cells under a head; numbers to the right.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let is_number = |column: usize| {
        rows.iter().all(|row| row[column].starts_with(|first: char| first.is_ascii_digit() || first == '-'))
    };
    let mut text = line(&head.map(str::to_owned));
    let rule: Vec<_> = (0..N)
        .map(|column| if column > 0 && is_number(column) { "---:" } else { "---" }.to_owned())
        .collect();
    text += &line(&rule).replace("| ", "|").replace(" |", "|");
    rows.iter().for_each(|row| text += &line(row));
    text
}

impl Results {
    pub fn new(file: &Path, head: &'static str) -> Self {
        Self { file: file.to_owned(), head }
    }

    /// Prints the section and puts it into the file in the place of the one with the same title.
    pub fn write(&self, title: &str, section: &str) {
        println!("## {title}\n\n{section}");
        let before = fs::read_to_string(&self.file).unwrap_or_else(|_| self.head.to_owned());
        let heading = format!("## {title}\n");
        let mut sections: Vec<String> =
            before.split_inclusive('\n').fold(vec![String::new()], |mut sections, line| {
                if line.starts_with("## ") {
                    sections.push(String::new());
                }
                *sections.last_mut().unwrap() += line;
                sections
            });
        let written = format!("{heading}\n{}\n", section.trim_end());
        match sections.iter_mut().find(|section| section.starts_with(&heading)) {
            Some(old) => *old = written,
            None => sections.push(written),
        }
        let text: Vec<_> = sections.iter().map(|section| section.trim_end()).collect();
        fs::write(&self.file, text.join("\n\n") + "\n").unwrap();
    }
}
