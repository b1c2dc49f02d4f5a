//! Who may do what: sessions, one-time links, API keys and share links, and the limits on trying.

mod access;
mod limits;
mod once;
mod own_page;
mod passwords;
mod sessions;
mod signer;
mod tokens;

pub(crate) use access::{Access, Asker, OPERATOR};
pub(crate) use limits::{LoginLimits, TooMany};
pub(crate) use once::{OnceLink, OnceLinks, RefusedLink};
pub use once::{login_url, set_up_url};
pub(crate) use own_page::{is_own_form, is_own_origin, session_cookie, set_cookie};
pub(crate) use passwords::{Busy, Passwords};
pub(crate) use sessions::{Session, Sessions};
pub(crate) use signer::Secret;
pub(crate) use tokens::{Shares, find_key, key_hash, new_id, new_key_token};
