//! Text from strangers.

/// Foreign text without the characters that could move a terminal's cursor, forge a line of a log, or show letters in another order than
/// they stand in: line ends become " | ".
pub fn printable(text: &str) -> String {
    let lines = text.lines().map(str::trim_end).filter(|line| !line.is_empty());
    lines.map(|line| line.replace(plays, " ")).collect::<Vec<_>>().join(" | ")
}

/// Control characters, the two line ends of Unicode, and its marks of direction (UAX #9, table of explicit formatting).
fn plays(character: char) -> bool {
    character.is_control() || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
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
            ("error: forged\u{2028}line", "error: forged line"),
            ("\u{202e}moc.elpmaxe", " moc.elpmaxe"),
            ("", ""),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}
