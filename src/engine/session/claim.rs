//! [`CaskClaim`]: what the engine knows of a lock that it has given.

use std::any::Any;
use std::sync::Arc;

use crate::engine::context::Context;
use crate::engine::write::live::LiveSession;
use crate::engine::write::request::Holding;
use crate::store::{Claim, Held};

/// What a [`Held`] of this engine stands for.
pub(crate) struct CaskClaim {
    /// The full key.
    pub(crate) key: Box<[u8]>,
    pub(super) token: u64,
    pub(super) live: Arc<LiveSession>,
    pub(super) context: Arc<Context>,
}

impl CaskClaim {
    pub(super) fn held(self: &Arc<CaskClaim>) -> Held {
        Held::of(self.token, self.live.loss().clone(), Arc::clone(self) as Arc<dyn Claim>)
    }

    pub(crate) fn holding(&self) -> Holding {
        Holding { session: self.live.session, nonce: self.live.nonce, acquired: self.token }
    }
}

impl Claim for CaskClaim {
    fn is_held(&self) -> bool {
        self.context.is_this_process() && self.live.is_live(self.context.machine_time())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
