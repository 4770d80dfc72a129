//! Holds the files that operators copy.
