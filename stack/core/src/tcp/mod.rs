//! One TCP subflow.
