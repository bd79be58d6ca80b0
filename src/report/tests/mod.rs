//! The screens, from recorded events: what stays, what is redrawn, and the log without a terminal.

mod machine;
mod recorded;
mod screens;
