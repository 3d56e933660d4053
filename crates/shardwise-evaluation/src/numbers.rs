//! Numbers as people read them: milliseconds, shares, changes, counts. Units are part of the text or of the column.

use crate::Unit;

/// A count with thousands apart: 12,345.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds with one decimal, without the unit.
pub(crate) fn millis(ms: f64) -> String {
    if !ms.is_finite() {
        return "–".to_owned();
    }
    let tenths = (ms.abs() * 10.0).round() as u64;
    let sign = if ms < 0.0 && tenths > 0 { "−" } else { "" };
    format!("{sign}{}.{}", grouped(tenths / 10), tenths % 10)
}

/// Milliseconds for crowded tables: one decimal below 100, none from there on.
pub(crate) fn short_millis(ms: f64) -> String {
    if ms.is_finite() && ms.abs() >= 99.95 { millis(ms.round()).trim_end_matches(".0").to_owned() } else { millis(ms) }
}

/// A number of any size with three digits that matter, without the unit.
pub fn figure(value: f64) -> String {
    match value.abs() {
        size if !size.is_finite() => "–".to_owned(),
        size if size >= 1000.0 => format!("{}{}", if value < 0.0 { "−" } else { "" }, grouped(size.round() as u64)),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// The same with whole numbers as such, and with a minus sign.
pub fn plain(value: f64) -> String {
    let is_whole = value.fract() == 0.0 && value.abs() < 1e15;
    let size = if is_whole { grouped(value.abs() as u64) } else { figure(value.abs()) };
    if value < 0.0 { format!("−{size}") } else { size }
}

/// A share in percent with two decimals, without the unit.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.2}", share * 100.0) } else { "–".to_owned() }
}

/// A ratio as a signed change: 0.88 is −12.0 %.
pub(crate) fn change_percent(ratio: f64) -> String {
    if !ratio.is_finite() {
        return "–".to_owned();
    }
    let tenths = ((ratio - 1.0) * 1000.0).round() as i64;
    let sign = match tenths.signum() {
        -1 => "−",
        1 => "+",
        _ => "",
    };
    format!("{sign}{}.{} %", grouped(tenths.unsigned_abs() / 10), tenths.unsigned_abs() % 10)
}

/// The same without the unit.
pub(crate) fn change(ratio: f64) -> String {
    change_percent(ratio).trim_end_matches(" %").to_owned()
}

/// A metric's value in its unit, without naming the unit.
pub(crate) fn in_unit(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Millis => millis(value),
        Unit::Share => percent(value),
        Unit::Plain => format!("{value:.3}"),
    }
}

/// The unit's name with a leading space, empty for plain numbers.
pub(crate) fn unit_name(unit: Unit) -> &'static str {
    match unit {
        Unit::Millis => " ms",
        Unit::Share => " %",
        Unit::Plain => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        for (text, expected) in [
            (grouped(0), "0"),
            (grouped(1_234_567), "1,234,567"),
            (millis(1023.44), "1,023.4"),
            (millis(0.96), "1.0"),
            (millis(f64::NAN), "–"),
            (short_millis(99.94), "99.9"),
            (short_millis(99.96), "100"),
            (short_millis(1023.44), "1,023"),
            (percent(0.0039), "0.39"),
            (figure(1234.5), "1,235"),
            (figure(23.45), "23.4"),
            (figure(-0.0313), "-0.031"),
            (plain(16.0), "16"),
            (plain(-0.0313), "−0.031"),
            (plain(-1234.0), "−1,234"),
            (plain(f64::NAN), "–"),
            (change_percent(0.88), "−12.0 %"),
            (change_percent(1.061), "+6.1 %"),
            (change_percent(0.999_99), "0.0 %"),
            (change_percent(21.5), "+2,050.0 %"),
        ] {
            assert_eq!(text, expected);
        }
    }
}
