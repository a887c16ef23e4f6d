//! The country codes, and the tables of those with a flag and of the most populous countries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// The 20 most populous countries, most populous first: the default selection.
pub const POP20: [&str; 20] = [
    "CN", "IN", "US", "ID", "BR", "PK", "NG", "BD", "RU", "JP", "MX", "PH", "VN", "ET", "EG", "DE",
    "IR", "TR", "CD", "FR",
];

/// The codes that have a flag, sorted.
#[rustfmt::skip]
pub const AVAILABLE: [&str; 194] = [
    "AD", "AE", "AF", "AG", "AL", "AM", "AO", "AR", "AT", "AU", "AZ", "BA", "BB", "BD",
    "BE", "BF", "BG", "BH", "BI", "BJ", "BN", "BO", "BR", "BS", "BT", "BW", "BY", "BZ",
    "CA", "CD", "CF", "CG", "CH", "CI", "CL", "CM", "CN", "CO", "CR", "CU", "CV", "CY",
    "CZ", "DE", "DJ", "DK", "DM", "DZ", "EC", "EE", "EG", "ER", "ES", "ET", "FI", "FJ",
    "FM", "FR", "GA", "GB", "GD", "GE", "GH", "GM", "GN", "GQ", "GR", "GT", "GW", "GY",
    "HN", "HR", "HT", "HU", "ID", "IE", "IL", "IN", "IQ", "IR", "IS", "IT", "JM", "JO",
    "JP", "KE", "KG", "KH", "KI", "KM", "KN", "KP", "KR", "KW", "KZ", "LA", "LB", "LC",
    "LI", "LK", "LR", "LS", "LT", "LU", "LV", "LY", "MA", "MC", "MD", "ME", "MG", "MH",
    "MK", "ML", "MM", "MN", "MR", "MT", "MU", "MV", "MW", "MX", "MY", "MZ", "NA", "NE",
    "NG", "NI", "NL", "NO", "NP", "NR", "NZ", "OM", "PA", "PE", "PG", "PH", "PK", "PL",
    "PT", "PW", "PY", "QA", "RO", "RS", "RU", "RW", "SA", "SB", "SC", "SD", "SE", "SG",
    "SI", "SK", "SL", "SM", "SN", "SO", "SR", "SS", "ST", "SV", "SY", "SZ", "TD", "TG",
    "TH", "TJ", "TL", "TM", "TN", "TO", "TR", "TT", "TV", "TW", "TZ", "UA", "UG", "US",
    "UY", "UZ", "VA", "VC", "VE", "VN", "VU", "WS", "YE", "ZA", "ZM", "ZW",
];

/// A country code: two upper-case ASCII letters. Not every code has a flag.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code([u8; 2]);

impl Code {
    /// The 26 codes that begin with a letter, in any case; none for anything else.
    pub fn starting_with(letter: char) -> impl Iterator<Item = Code> {
        let first = letter.is_ascii_alphabetic().then(|| letter.to_ascii_uppercase() as u8);
        first.into_iter().flat_map(|first| (b'A'..=b'Z').map(move |second| Code([first, second])))
    }

    /// The code as text, `BR`.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a code is two ASCII letters")
    }

    /// The code as in URLs and file names, `br`.
    pub fn lower(self) -> String {
        self.as_str().to_ascii_lowercase()
    }
}

impl FromStr for Code {
    type Err = InvalidCode;

    /// Takes two ASCII letters in any case.
    fn from_str(text: &str) -> Result<Self, InvalidCode> {
        match *text.as_bytes() {
            [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic() => {
                Ok(Code([a.to_ascii_uppercase(), b.to_ascii_uppercase()]))
            }
            _ => Err(InvalidCode(text.to_owned())),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A text that is not a code.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a country code is two letters, AA to ZZ, not {0:?}")]
pub struct InvalidCode(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_and_have_each_code_once() {
        assert!(AVAILABLE.is_sorted_by(|a, b| a < b));
        assert_eq!(AVAILABLE.iter().filter(|code| code.parse::<Code>().is_ok()).count(), 194);
        assert!(POP20.iter().all(|code| AVAILABLE.contains(code)));
    }

    #[test]
    fn a_code_is_a_string_in_json() {
        let code: Code = "br".parse().unwrap();
        assert_eq!(serde_json::to_string(&code).unwrap(), r#""BR""#);
        assert_eq!(serde_json::from_str::<Code>(r#""BR""#).unwrap(), code);
        assert!(serde_json::from_str::<Code>(r#""BRA""#).is_err());
        assert_eq!((code.lower(), format!("{code:>4}")), ("br".into(), "  BR".into()));
    }

    #[test]
    fn a_letter_begins_26_codes() {
        let codes: Vec<Code> = Code::starting_with('b').collect();
        assert_eq!((codes.len(), codes[0].as_str(), codes[25].as_str()), (26, "BA", "BZ"));
        assert_eq!(Code::starting_with('é').count() + Code::starting_with('1').count(), 0);
    }
}
