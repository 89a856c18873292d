//! Text from strangers.

/// Foreign text without the control characters that could move a terminal's cursor or forge a line of a log: line ends become " | ".
pub fn printable(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.map(|line| line.replace(char::is_control, " ")).collect::<Vec<_>>().join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_and_logs_are_not_played_with() {
        for (text, expected) in [
            ("plain text", "plain text"),
            ("one\r\n\r\ntwo\n", "one | two"),
            ("\u{1b}[2Jgone\u{7}", " [2Jgone "),
            ("error: forged\rline", "error: forged line"),
            ("", ""),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}
