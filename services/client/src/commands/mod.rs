//! The commands but `sql`: one file for each, with what its resources show of themselves.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod catalog;
pub(crate) mod credential_option;
pub(crate) mod credentials;
pub(crate) mod explain_access;
pub(crate) mod files;
pub(crate) mod grants;
pub(crate) mod groups;
pub(crate) mod inspection;
pub(crate) mod instances;
pub(crate) mod login;
pub(crate) mod logins;
pub(crate) mod ops;
pub(crate) mod pools;
mod provider_login;
pub(crate) mod provision;
pub(crate) mod restore;
pub(crate) mod roles;
pub(crate) mod server_fields;
pub(crate) mod servers;
pub(crate) mod setting_value;
pub(crate) mod settings;
pub(crate) mod token;
pub(crate) mod transfer;
pub(crate) mod users;
pub(crate) mod whoami;
