//! Who callers are: the keys of a Supabase project, tokens that others signed, tokens that we sign, and keys of programs.
//!
//! Nothing here knows of routes or of rows; `api` asks it who a request is from, and the store what a request of its own is sent with.

pub mod api_key;
pub mod fetch;
mod key_file;
pub mod login;
pub mod mint;
pub mod project;
pub mod seal;
pub mod verify;

#[cfg(test)]
mod tests;
