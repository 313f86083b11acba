//! Packet I/O for the anabranch stack.
