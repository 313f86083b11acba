//! Traces of one sender in virtual time.
