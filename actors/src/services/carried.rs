//! Where the compiled interests are: the storage carries them as the companion of its tables.

use std::sync::{Arc, LazyLock};

use schema::{Companion, Store, Tx};

use super::interests::Interests;

/// The interests of a server without registrations.
static NONE: LazyLock<Arc<Interests>> = LazyLock::new(Arc::default);

/// Knows the interests: the storage as last committed, a write as of its place in the order.
pub trait CarriesInterests {
    /// The compiled namespaces of all present services.
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

/// From the next write on, these are the interests. Only in a closure given to [`Store::write_alone`]: the commit swaps them.
pub fn swap_interests(tx: &mut Tx<'_>, new: impl Into<Arc<Interests>>) {
    let new: Arc<Interests> = new.into();
    tx.swap_companion(new);
}
