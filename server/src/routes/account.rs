//! To be filled.

use crate::ruma::Routes;

/// This section's endpoints.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
}
