//! WooCommerce Stripe gateway #2720, "The charged amount is divided by 10 for three-decimal currencies":
//! <https://github.com/woocommerce/woocommerce-gateway-stripe/issues/2720>; yen times a hundred:
//! Paymenter #1258, <https://github.com/Paymenter/Paymenter/issues/1258>.
//!
//! An amount was scaled by 100 whatever its currency: 35.20 BHD was charged as 3.520, 500 JPY as 50,000.
//!
//! Here a currency knows its decimals, an amount is whole minor units from the request to the acquirer,
//! and a decimal that the currency does not have is an error.

use settle_types::{Currency, Money, MoneyError};

#[test]
fn a_currency_knows_its_decimals() {
    let minor =
        |text, code| Money::parse_major(text, Currency::parse(code).unwrap()).map(|money| money.minor());
    assert_eq!(minor("35.20", "BHD"), Ok(35_200));
    assert_eq!(minor("18.600", "KWD"), Ok(18_600));
    assert_eq!(minor("500", "JPY"), Ok(500));
    assert_eq!(minor("12.50", "EUR"), Ok(1_250));
    assert_eq!(minor("500.5", "JPY"), Err(MoneyError::TooPrecise));
    assert_eq!(minor("12.505", "EUR"), Err(MoneyError::TooPrecise));
}
