//! The connection.

mod reorder;
