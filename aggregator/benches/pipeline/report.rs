//! Tables in Markdown.

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
