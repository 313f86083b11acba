//! Ready-made applications.

mod chatter;
mod echo;
mod transfer;

pub use chatter::{Action, Chatter, Note};
pub use echo::Echo;
pub use transfer::{Flow, Received, Transfer};
