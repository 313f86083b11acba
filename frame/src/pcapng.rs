//! Capture files: pcapng blocks as bytes.
