//! One integration binary: the behaviour of a running proxy, module by module.

mod accounting;
mod admin;
mod assignment;
mod command_line;
mod forward;
mod harness;
mod operate;
mod refuse;
mod reload;
mod tidy;
mod upstream;
