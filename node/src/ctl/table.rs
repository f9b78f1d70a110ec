//! Columns of text.

/// The color of a cell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Color {
    #[default]
    None,
    Good,
    Warning,
    Bad,
    Faint,
}

impl Color {
    const fn code(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Good => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Bad => "\x1b[31m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    color: Color,
}

impl Cell {
    /// A text from the server: control characters could do things to a terminal.
    pub(super) fn new(text: &str) -> Self {
        let text = text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect();
        Self {
            text,
            color: Color::None,
        }
    }

    pub(super) const fn colored(mut self, color: Color) -> Self {
        self.color = color;
        self
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Rows below a head, left aligned, two spaces between columns.
pub(super) fn columns(head: &[&str], rows: Vec<Vec<Cell>>, is_colored: bool) -> String {
    let head = head
        .iter()
        .map(|name| Cell::new(name).colored(Color::Faint))
        .collect();
    let rows: Vec<Vec<Cell>> = std::iter::once(head).chain(rows).collect();
    lines(&rows, is_colored)
}

/// Names and values.
pub(super) fn pairs(rows: Vec<(&str, Cell)>, is_colored: bool) -> String {
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(name, cell)| vec![Cell::new(name).colored(Color::Faint), cell])
        .collect();
    lines(&rows, is_colored)
}

fn lines(rows: &[Vec<Cell>], is_colored: bool) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        widths.resize(widths.len().max(row.len()), 0);
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let mut out = String::new();
    for row in rows {
        let last = row.len().saturating_sub(1);
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let is_painted = is_colored && cell.color != Color::None;
            if is_painted {
                out.push_str(cell.color.code());
            }
            out.push_str(&cell.text);
            if is_painted {
                out.push_str("\x1b[0m");
            }
            if index < last {
                out.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![
            vec![
                Cell::new("camera-1"),
                Cell::new("online").colored(Color::Good),
            ],
            vec![Cell::new("ü"), Cell::new("x")],
        ];
        let plain = columns(&["ID", "STATE"], rows.clone(), false);
        assert_eq!(plain, "ID        STATE\ncamera-1  online\nü         x\n");
        let colored = columns(&["ID", "STATE"], rows, true);
        assert!(colored.contains("\x1b[32monline\x1b[0m\n"));
    }

    #[test]
    fn nothing_a_server_says_reaches_the_terminal_as_a_control_character() {
        let cell = Cell::new("a\x1b[2Jb\r\n");
        assert!(!cell.text.chars().any(char::is_control));
    }
}
