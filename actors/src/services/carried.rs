//! Access to the compiled interests, which the storage carries and swaps together with its tables.

use std::sync::{Arc, LazyLock};

use schema::{Companion, Store, Tx};

use super::interests::Interests;

/// The interests of a server without registrations.
static NONE: LazyLock<Arc<Interests>> = LazyLock::new(Arc::default);

/// A source of the compiled interests: the storage has the last committed ones, and a write has those that are in force at its
/// place in the order of writes.
pub trait CarriesInterests {
    /// The compiled namespaces of all present appservices.
    fn interests(&self) -> Arc<Interests>;
}

impl CarriesInterests for Store {
    fn interests(&self) -> Arc<Interests> {
        of(self.companion())
    }
}

impl CarriesInterests for Tx<'_> {
    fn interests(&self) -> Arc<Interests> {
        of(self.companion())
    }
}

fn of(companion: Companion) -> Arc<Interests> {
    companion.downcast().unwrap_or_else(|_| Arc::clone(&NONE))
}

/// Replace the interests from the next write on. Only for a closure given to [`Store::write_alone`]: the commit swaps them.
pub fn swap_interests(tx: &mut Tx<'_>, new: impl Into<Arc<Interests>>) {
    let new: Arc<Interests> = new.into();
    tx.swap_companion(new);
}
