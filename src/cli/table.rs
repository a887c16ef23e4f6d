//! A table for a terminal: in columns; in several parts if the columns do not fit beside each other; or
//! with one line for each cell.

use console::{Alignment, measure_text_width, pad_str};

/// Between two columns.
const GAP: &str = "  ";

/// Maximum number of parts.
const MOST_PARTS: usize = 3;

/// A table. Cells may have colours. All columns are numbers, but the first and those in `texts`.
pub(super) struct Table {
    head: Vec<&'static str>,
    texts: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty one with this head. The columns in `texts` are aligned to the left, as is the first.
    pub(super) fn new(head: &[&'static str], texts: &[&'static str]) -> Self {
        Self { head: head.to_vec(), texts: texts.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, with a cell for each column.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.head.len());
        self.rows.push(cells);
    }

    /// The number of columns of the terminal that it takes in one part.
    pub(super) fn width(&self) -> usize {
        let widths = self.widths();
        widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1)
    }

    /// The table as text, no wider than `width` if possible.
    pub(super) fn render(&self, width: usize) -> String {
        let widths = self.widths();
        let parts = parts(&widths, width);
        if parts.len() > MOST_PARTS {
            return self.below_each_other();
        }
        let parts: Vec<_> = parts.iter().map(|columns| self.in_columns(columns, &widths)).collect();
        parts.join("\n")
    }

    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| measure_text_width(&row[column]));
            cells.chain([self.head[column].len()]).max().unwrap_or(0)
        };
        (0..self.head.len()).map(width).collect()
    }

    fn in_columns(&self, columns: &[usize], widths: &[usize]) -> String {
        let mut text = String::new();
        let head: Vec<String> = self.head.iter().map(|&title| title.to_owned()).collect();
        for row in [&head].into_iter().chain(&self.rows) {
            let cells = columns.iter().map(|&column| {
                let is_text = column == 0 || self.texts.contains(&self.head[column]);
                let side = if is_text { Alignment::Left } else { Alignment::Right };
                pad_str(&row[column], widths[column], side, None).into_owned()
            });
            text += cells.collect::<Vec<_>>().join(GAP).trim_end();
            text.push('\n');
        }
        text
    }

    fn below_each_other(&self) -> String {
        let mut text = String::new();
        for row in &self.rows {
            text += &format!("{}\n", row[0]);
            let cells = self
                .head
                .iter()
                .zip(row)
                .skip(1)
                .filter(|(_, cell)| !["", "-"].contains(&cell.as_str()));
            for (title, cell) in cells {
                text += &format!("  {title}: {cell}\n");
            }
        }
        text
    }
}

/// The columns of each part: as many as fit, the first one always among them.
fn parts(widths: &[usize], width: usize) -> Vec<Vec<usize>> {
    let mut parts = vec![vec![0]];
    let mut taken = widths[0];
    for (column, wide) in widths.iter().enumerate().skip(1) {
        if taken + GAP.len() + wide > width && parts.last().is_some_and(|part| part.len() > 1) {
            parts.push(vec![0]);
            taken = widths[0];
        }
        taken += GAP.len() + wide;
        parts.last_mut().expect("there is one").push(column);
    }
    let is_too_wide = |part: &Vec<usize>| {
        part.iter().map(|&column| widths[column] + GAP.len()).sum::<usize>()
            > width.saturating_add(GAP.len())
    };
    if parts.iter().any(is_too_wide) { vec![Vec::new(); MOST_PARTS + 1] } else { parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_of_a_table_depends_on_the_width() {
        let mut table = Table::new(&["who", "tasks", "ended"], &["ended"]);
        table.row(vec!["worker 0".into(), "7".into(), "\x1b[31mwell\x1b[0m".into()]);
        table.row(vec!["worker 10".into(), "123".into(), String::new()]);
        let wide = "who        tasks  ended\n\
                    worker 0       7  \x1b[31mwell\x1b[0m\n\
                    worker 10    123\n";
        assert_eq!(table.render(23), wide);
        let parts = "who        tasks\n\
                     worker 0       7\n\
                     worker 10    123\n\
                     \n\
                     who        ended\n\
                     worker 0   \x1b[31mwell\x1b[0m\n\
                     worker 10\n";
        assert_eq!(table.render(22), parts);
        let below = "worker 0\n  tasks: 7\n  ended: \x1b[31mwell\x1b[0m\nworker 10\n  tasks: 123\n";
        assert_eq!(table.render(15), below);
    }
}
