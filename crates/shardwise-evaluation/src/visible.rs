//! Text that people look at: names come from anybody, and must not change how what stands beside them reads.

use std::fmt::{self, Write};

/// A longer text is cut on a page; files of numbers hold it whole.
const LONGEST: usize = 2_000;

/// The text with what cannot be seen made visible: control characters but for line ends, marks that turn the direction of text,
/// and characters without width; `U+202E` stands in corner brackets.
pub fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_unseen(letter) {
            // A string takes all that is written to it.
            let _ = write!(shown, "⟨U+{:04X}⟩", u32::from(letter));
        } else {
            shown.push(letter);
        }
    }
    shown
}

fn is_unseen(letter: char) -> bool {
    match letter {
        '\n' => false,
        '\u{061C}' | '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}' => true,
        letter => letter.is_control(),
    }
}

/// Escapes what templates show: [`visible`], and no markup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visible;

impl askama::filters::Escaper for Visible {
    fn write_escaped_str<W: Write>(&self, mut page: W, text: &str) -> fmt::Result {
        page.write_str(&escape(text))
    }
}

/// Escapes text for HTML and SVG, and cuts it when it is long.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (place, letter) in visible(text).chars().enumerate() {
        match letter {
            _ if place == LONGEST => {
                escaped.push('…');
                break;
            }
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hides_and_nothing_is_markup() {
        assert_eq!(visible("a\u{202E}b\u{7}c\u{0}"), "a⟨U+202E⟩b⟨U+0007⟩c⟨U+0000⟩");
        assert_eq!(visible("日本 é\nשלום"), "日本 é\nשלום", "what can be read stays");
        assert_eq!(escape("<b onclick='x'>&\"\u{1b}[31m"), "&lt;b onclick=&#39;x&#39;&gt;&amp;&quot;⟨U+001B⟩[31m");
        let long = "x".repeat(10_000);
        assert_eq!((visible(&long).len(), escape(&long).chars().count()), (10_000, LONGEST + 1));
    }
}
