//! What hooks of proposals keep from devices and from appservices when a message arrives.

use schema::Tx;

use super::Deposit;
use super::rules::Delivery;
use crate::Result;
use crate::hooks::{OwedDraft, ReportsChanges, Withholding};
use crate::services::Interests;

/// Let the hooks of proposals keep messages from devices, and copies from appservices. An appservice without its copy does not decide
/// over the message: it waits for its device.
pub(super) fn ask_hooks(
    tx: &mut Tx<'_>,
    msg: &Deposit,
    interests: &Interests,
    deliveries: &mut Vec<Delivery<'_>>,
) -> Result<()> {
    if tx.checks_messages() {
        for delivery in std::mem::take(deliveries) {
            let to = &delivery.to.device;
            if tx.lets_message(&msg.from, &msg.event_type, to, delivery.content)? {
                deliveries.push(delivery);
            }
        }
    }
    let withholding = Withholding::of(tx);
    for Delivery { to, copies, .. } in deliveries.iter_mut().filter(|_| withholding.is_some()) {
        let about = (msg.from.user.as_str(), msg.event_type.as_str());
        let item = OwedDraft::message(about, (&to.device.user_id, &to.device.device_id));
        copies.retain(|(id, _)| withholding.lets(interests.service(id), &item));
    }
    Ok(())
}
