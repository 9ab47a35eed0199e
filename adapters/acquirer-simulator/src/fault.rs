//! Faults, chosen by the payment method of a charge, as test cards do at real PSPs.
//!
//! | method | what happens |
//! |---|---|
//! | `sim:decline` | declined, whatever the amount |
//! | `sim:delay:MS` | the answer comes MS milliseconds later |
//! | `sim:pending:N` | pending; approved at the N-th lookup |
//! | `sim:unreachable:N` | the first N charges do not arrive |
//! | `sim:lost-answer:N` | the first N charges are done, their answers lost (an error after it took the money) |
//! | `sim:void-fails:N` | the first N voids do not arrive |
//! | `sim:void-lost-answer:N` | the first N voids are done, their answers lost |
//! | `sim:refund-lost-answer:N` | the first N refunds are done, their answers lost |

/// A fault that a charge carries for its whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    Decline,
    DelayMillis(u32),
    Pending(u32),
    Unreachable(u32),
    LostAnswer(u32),
    VoidFails(u32),
    VoidLostAnswer(u32),
    RefundLostAnswer(u32),
}

/// The fault that a payment method names; any other method works.
pub fn of(method: &str) -> Fault {
    let Some(fault) = method.strip_prefix("sim:") else { return Fault::None };
    let (name, count) = fault.split_once(':').unwrap_or((fault, "1"));
    let count = count.parse().unwrap_or(1);
    match name {
        "decline" => Fault::Decline,
        "delay" => Fault::DelayMillis(count),
        "pending" => Fault::Pending(count),
        "unreachable" => Fault::Unreachable(count),
        "lost-answer" => Fault::LostAnswer(count),
        "void-fails" => Fault::VoidFails(count),
        "void-lost-answer" => Fault::VoidLostAnswer(count),
        "refund-lost-answer" => Fault::RefundLostAnswer(count),
        _ => Fault::None,
    }
}
