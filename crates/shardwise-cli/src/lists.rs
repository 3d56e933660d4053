//! Lists on the command line: `1,2,5-8`, `0.5,0.7`, `lan,metro`.

use std::str::FromStr;

/// Whole numbers and ranges of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbers(pub(crate) Vec<u64>);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut numbers = Vec::new();
        for part in text.split(',').map(str::trim) {
            let number = |text: &str| text.trim().parse::<u64>().map_err(|_| format!("'{text}' is not a whole number"));
            let (from, to) = match part.split_once('-') {
                Some((from, to)) => (number(from)?, number(to)?),
                None => (number(part)?, number(part)?),
            };
            if to < from || to - from >= 10_000 {
                return Err(format!("'{part}' is not a range; write it as 1-10"));
            }
            numbers.extend(from..=to);
        }
        once(numbers).map(Self)
    }
}

/// Decimal numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Decimals(pub(crate) Vec<f64>);

impl FromStr for Decimals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.trim().parse::<f64>().ok().filter(|number| number.is_finite());
        let numbers = text.split(',').map(|part| number(part).ok_or_else(|| format!("'{part}' is not a number")));
        once(numbers.collect::<Result<Vec<f64>, String>>()?).map(Self)
    }
}

/// Words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

impl FromStr for Words {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        once(text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()).map(Self)
    }
}

/// A list that holds everything once.
fn once<T: PartialEq + std::fmt::Debug>(items: Vec<T>) -> Result<Vec<T>, String> {
    if items.is_empty() {
        return Err("the list is empty".to_owned());
    }
    match items.iter().enumerate().find(|(place, item)| items[..*place].contains(item)) {
        Some((_, item)) => Err(format!("{item:?} is there twice")),
        None => Ok(items),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges_are_read_and_careless_ones_refused() {
        assert_eq!("1,3-5".parse(), Ok(Numbers(vec![1, 3, 4, 5])));
        assert_eq!(".5, 0.7".parse(), Ok(Decimals(vec![0.5, 0.7])));
        for wrong in ["", "a", "1,1", "5-3", "1-", "-1", "1;2"] {
            assert!(wrong.parse::<Numbers>().is_err(), "{wrong}");
        }
        assert!("0.5,nan".parse::<Decimals>().is_err());
        assert!(",".parse::<Words>().is_err());
    }
}
