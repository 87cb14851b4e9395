//! The judge: numbers in, numbers out.
