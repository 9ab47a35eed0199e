//! Money in minor units of an ISO 4217 currency, with checked arithmetic and no floats.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An ISO 4217 currency that the product accepts, with its exponent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency(&'static Iso);

/// One line of the standard's list.
#[derive(PartialEq, Eq, Hash)]
struct Iso {
    code: &'static str,
    exponent: u8,
}

const fn iso(code: &'static str, exponent: u8) -> Iso {
    Iso { code, exponent }
}

/// Codes and exponents of ISO 4217 list one (active currencies in general use).
#[rustfmt::skip]
const CURRENCIES: &[Iso] = &[
    iso("AED", 2), iso("ARS", 2), iso("AUD", 2), iso("BGN", 2), iso("BHD", 3), iso("BRL", 2),
    iso("CAD", 2), iso("CHF", 2), iso("CLP", 0), iso("CNY", 2), iso("COP", 2), iso("CZK", 2),
    iso("DKK", 2), iso("EGP", 2), iso("EUR", 2), iso("GBP", 2), iso("HKD", 2), iso("HUF", 2),
    iso("IDR", 2), iso("ILS", 2), iso("INR", 2), iso("ISK", 0), iso("JOD", 3), iso("JPY", 0),
    iso("KES", 2), iso("KRW", 0), iso("KWD", 3), iso("MAD", 2), iso("MXN", 2), iso("MYR", 2),
    iso("NGN", 2), iso("NOK", 2), iso("NZD", 2), iso("OMR", 3), iso("PEN", 2), iso("PHP", 2),
    iso("PKR", 2), iso("PLN", 2), iso("PYG", 0), iso("QAR", 2), iso("RON", 2), iso("RSD", 2),
    iso("SAR", 2), iso("SEK", 2), iso("SGD", 2), iso("THB", 2), iso("TND", 3), iso("TRY", 2),
    iso("TWD", 2), iso("UAH", 2), iso("UGX", 0), iso("USD", 2), iso("UYU", 2), iso("VND", 0),
    iso("XAF", 0), iso("XOF", 0), iso("ZAR", 2),
];

impl Currency {
    /// Parses an upper-case three-letter code.
    pub fn parse(code: &str) -> Result<Self, MoneyError> {
        CURRENCIES.iter().find(|known| known.code == code).map(Self).ok_or(MoneyError::UnknownCurrency)
    }

    pub fn code(&self) -> &'static str {
        self.0.code
    }

    /// Decimal places of the minor unit (ISO 4217): 2 for EUR, 0 for JPY, 3 for KWD.
    pub fn exponent(&self) -> u8 {
        self.0.exponent
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl TryFrom<String> for Currency {
    type Error = MoneyError;
    fn try_from(code: String) -> Result<Self, MoneyError> {
        Self::parse(&code)
    }
}

impl From<Currency> for String {
    fn from(currency: Currency) -> String {
        currency.code().to_owned()
    }
}

/// An amount in minor units: 12.50 EUR is `{minor: 1250, currency: EUR}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Money {
    minor: i64,
    currency: Currency,
}

/// Why an amount is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    #[error("currency must be an ISO 4217 code that this service accepts")]
    UnknownCurrency,
    #[error("amounts must be in one currency")]
    MixedCurrencies,
    #[error("amount is too large")]
    Overflow,
    #[error("amount must be more than zero")]
    NotPositive,
    #[error("amount must be a decimal number")]
    NotDecimal,
    #[error("amount has more decimals than its currency")]
    TooPrecise,
}

impl Money {
    pub fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// An amount that can be charged: more than zero.
    pub fn positive(minor: i64, currency: Currency) -> Result<Self, MoneyError> {
        if minor <= 0 {
            return Err(MoneyError::NotPositive);
        }
        Ok(Self { minor, currency })
    }

    /// Parses a plain decimal in major units ("12.5", "1000"). Trailing zeros past the
    /// currency's exponent are harmless; any other digit there is refused.
    pub fn parse_major(text: &str, currency: Currency) -> Result<Self, MoneyError> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        let bare_point = digits.contains('.') && fraction.is_empty();
        if whole.is_empty() || bare_point || !all_digits(whole) || !all_digits(fraction) {
            return Err(MoneyError::NotDecimal);
        }
        let places = usize::from(currency.exponent());
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > places {
            return Err(MoneyError::TooPrecise);
        }
        let padded = format!("{whole}{fraction:0<places$}");
        let minor: i64 = padded.parse().map_err(|_| MoneyError::Overflow)?;
        Ok(Self { minor: sign * minor, currency })
    }

    pub fn minor(&self) -> i64 {
        self.minor
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }

    pub fn checked_add(self, other: Self) -> Result<Self, MoneyError> {
        if self.currency != other.currency {
            return Err(MoneyError::MixedCurrencies);
        }
        let minor = self.minor.checked_add(other.minor).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }

    pub fn checked_sub(self, other: Self) -> Result<Self, MoneyError> {
        let minor = other.minor.checked_neg().ok_or(MoneyError::Overflow)?;
        self.checked_add(Self { minor, ..other })
    }

    pub fn checked_mul(self, factor: u32) -> Result<Self, MoneyError> {
        let minor = self.minor.checked_mul(i64::from(factor)).ok_or(MoneyError::Overflow)?;
        Ok(Self { minor, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn major_units_parse_exactly_or_not_at_all() {
        let rows: &[(&str, &str, Result<i64, MoneyError>)] = &[
            ("12.5", "EUR", Ok(1250)),
            ("12.50000", "EUR", Ok(1250)),
            ("0.01", "EUR", Ok(1)),
            ("-3", "EUR", Ok(-300)),
            ("12.505", "EUR", Err(MoneyError::TooPrecise)),
            ("100", "JPY", Ok(100)),
            ("100.5", "JPY", Err(MoneyError::TooPrecise)),
            ("1.234", "KWD", Ok(1234)),
            ("", "EUR", Err(MoneyError::NotDecimal)),
            (".5", "EUR", Err(MoneyError::NotDecimal)),
            ("5.", "EUR", Err(MoneyError::NotDecimal)),
            ("1e3", "EUR", Err(MoneyError::NotDecimal)),
            ("NaN", "EUR", Err(MoneyError::NotDecimal)),
            ("92233720368547758.07", "EUR", Ok(i64::MAX)),
            ("92233720368547758.08", "EUR", Err(MoneyError::Overflow)),
        ];
        for (text, code, expected) in rows {
            let currency = Currency::parse(code).unwrap();
            let parsed = Money::parse_major(text, currency).map(|m| m.minor());
            assert_eq!(&parsed, expected, "{text} {code}");
        }
    }

    #[test]
    fn arithmetic_never_wraps_and_never_mixes_currencies() {
        let eur = Currency::parse("EUR").unwrap();
        let usd = Currency::parse("USD").unwrap();
        let max = Money::new(i64::MAX, eur);
        assert_eq!(max.checked_add(Money::new(1, eur)), Err(MoneyError::Overflow));
        assert_eq!(max.checked_mul(2), Err(MoneyError::Overflow));
        assert_eq!(max.checked_sub(Money::new(i64::MIN, eur)), Err(MoneyError::Overflow));
        assert_eq!(max.checked_sub(Money::new(0, usd)), Err(MoneyError::MixedCurrencies));
        let (ten, three) = (Money::new(10, eur), Money::new(3, eur));
        assert_eq!(ten.checked_add(three), Ok(Money::new(13, eur)));
        assert_eq!(ten.checked_sub(three), Ok(Money::new(7, eur)));
        assert_eq!(ten.checked_mul(3), Ok(Money::new(30, eur)));
        assert_eq!(Money::positive(0, eur), Err(MoneyError::NotPositive));
        assert_eq!(Money::positive(1, eur), Ok(Money::new(1, eur)));
        assert_eq!(Currency::parse("eur"), Err(MoneyError::UnknownCurrency));
    }

    #[test]
    fn a_currency_is_its_code_everywhere() {
        let eur = Currency::try_from("EUR".to_owned()).unwrap();
        assert_eq!(
            (eur.code(), String::from(eur).as_str(), format!("{eur:?}").as_str()),
            ("EUR", "EUR", "EUR")
        );
    }
}
