//! Shutdown as an argument: a trigger and its watchers.
