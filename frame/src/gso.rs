//! Segmentation in software, for devices that cannot do it.
