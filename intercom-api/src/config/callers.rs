//! `api.apps` and `api.users`: who may call the HTTP API, as text (in the environment) or as a table.

use super::Api;
use crate::model::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A platform that signs its requests (spec admin-api.md §2.1).
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "AppForm")]
pub struct App {
    pub key: String,
    pub secret: Secret,
    pub name: String,
}

/// A person or program with a token of its own.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "UserForm")]
pub struct User {
    pub name: String,
    pub token: Secret,
    pub role: Role,
    /// What an operator may see beside the usual.
    pub may: Vec<Grant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Owner,
    /// Runs the house: no passwords, pictures or webhooks.
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grant {
    Passwords,
    Pictures,
}

/// `key:secret`, as a variable of the environment has it, or a table.
#[derive(Deserialize)]
#[serde(untagged)]
enum AppForm {
    Text(String),
    Table(AppTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppTable {
    key: String,
    secret: Secret,
    #[serde(default)]
    name: String,
}

impl TryFrom<AppForm> for App {
    type Error = &'static str;

    fn try_from(form: AppForm) -> Result<App, &'static str> {
        match form {
            AppForm::Table(AppTable { key, secret, name }) => Ok(App { key, secret, name }),
            AppForm::Text(text) => {
                let (key, secret) = text.split_once(':').ok_or("an app is `key:secret` or a table with key and secret")?;
                Ok(App { key: key.into(), secret: Secret::new(secret), name: String::new() })
            }
        }
    }
}

/// `name:role:token`, where the role may have grants, `operator+pictures`, or a table.
#[derive(Deserialize)]
#[serde(untagged)]
enum UserForm {
    Text(String),
    Table(UserTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserTable {
    name: String,
    token: Secret,
    role: Role,
    #[serde(default)]
    may: Vec<Grant>,
}

impl TryFrom<UserForm> for User {
    type Error = &'static str;

    fn try_from(form: UserForm) -> Result<User, &'static str> {
        let text = match form {
            UserForm::Table(UserTable { name, token, role, may }) => return Ok(User { name, token, role, may }),
            UserForm::Text(text) => text,
        };
        let wrong = "a user is `name:owner:token`, `name:operator:token` (or `operator+passwords+pictures`), or a table";
        let [name, role, token] = *text.splitn(3, ':').collect::<Vec<_>>() else { return Err(wrong) };
        let mut words = role.split('+');
        let role = match words.next() {
            Some("owner") => Role::Owner,
            Some("operator") => Role::Operator,
            _ => return Err(wrong),
        };
        let grant = |word| match word {
            "passwords" => Ok(Grant::Passwords),
            "pictures" => Ok(Grant::Pictures),
            _ => Err(wrong),
        };
        Ok(User { name: name.into(), token: Secret::new(token), role, may: words.map(grant).collect::<Result<_, _>>()? })
    }
}

impl App {
    /// By its name, or its key where it has none.
    pub fn called(&self) -> &str {
        if self.name.is_empty() { &self.key } else { &self.name }
    }
}

/// The record says who opened, and each has requests a second of his own, so a name is one caller's. The holder of `api.bearer`
/// is `owner`.
const NAME: &str = "is no name, is another's, or is `owner`: 1 to 64 printable characters";

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.chars().count()) && !name.chars().any(char::is_control)
}

/// Two callers with one key or token would be one.
pub(super) fn check(api: &Api, wrong: &mut impl FnMut(&str, &str, String)) {
    let (mut keys, mut names) = (BTreeSet::new(), BTreeSet::from(["owner"]));
    for app in &api.apps {
        if app.key.is_empty() || app.key.len() > 64 || !app.key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        {
            wrong("api", "apps", format!("`{}` is no key: 1 to 64 letters, digits, `-`, `_`, `.`", app.key));
        }
        if app.secret.reveal().len() < 6 {
            wrong("api", "apps", format!("the secret of `{}` has fewer than 6 characters", app.key));
        }
        if !keys.insert(&app.key) {
            wrong("api", "apps", format!("`{}` is there twice", app.key));
        } else if !is_name(app.called()) || !names.insert(app.called()) {
            wrong("api", "apps", format!("`{}` {NAME}", app.called()));
        }
    }
    let mut tokens = BTreeSet::from([api.bearer.reveal()]);
    for user in &api.users {
        if !is_name(&user.name) || !names.insert(&user.name) {
            wrong("api", "users", format!("`{}` {NAME}", user.name));
        }
        if user.token.reveal().len() < 6 || !tokens.insert(user.token.reveal()) {
            wrong("api", "users", format!("the token of `{}` has fewer than 6 characters or is another's", user.name));
        }
    }
}
