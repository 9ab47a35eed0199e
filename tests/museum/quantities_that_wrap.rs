//! SimplCommerce #1110 (CVE-2024-50944), a quantity that wraps around:
//! <https://github.com/simplcommerce/SimplCommerce/issues/1110>; negative quantities as a discount: Medusa
//! #13504, <https://github.com/medusajs/medusa/issues/13504>.
//!
//! 2,147,483,647 of something and one more were minus 2,147,483,648, and the total negative.
//!
//! Here a quantity is unsigned and bounded, totals are computed with checks, and an order of nothing or
//! of less than nothing is refused before anything is written.

use settle_order_core::{Item, NewOrder};
use settle_tests::native::alice;
use settle_types::{Currency, Money};

#[test]
fn totals_neither_wrap_nor_sink() {
    let order = |quantity, minor| {
        let unit_price = Money::new(minor, Currency::parse("EUR").unwrap());
        let item = Item { product_id: "book".parse().unwrap(), quantity, unit_price };
        NewOrder::parse(&alice(), None, vec![item], None)
    };
    assert!(order(1, 1250).is_ok());
    for (quantity, minor) in [(0, 1250), (u32::MAX, i64::MAX), (u32::MAX, 1250), (1, -1250), (1, 0)] {
        assert!(order(quantity, minor).is_err(), "{quantity} at {minor}");
    }
}
