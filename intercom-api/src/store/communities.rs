//! Tokens of communities (spec admin-api.md §2.2). A community is the app's that asked for it first, and has one token at a
//! time; the store has only its SHA-256, so a stolen copy of the store opens nothing.

use super::*;
use sha2::{Digest, Sha256};

/// How long a token lasts, in milliseconds.
pub const TOKEN_MS: i64 = 7_200_000;

/// Communities of one app: their ids are invented outside, and the table must end somewhere.
const MAX_COMMUNITIES: i64 = 10_000;
/// 160 bits.
const LETTERS: usize = 32;

impl Store {
    /// `token/get`: a new token; the former one is void.
    pub async fn new_token(&self, tenant: Tenant, community: i64, now_ms: i64) -> Result<String, StoreError> {
        self.transact(move |t| {
            let mut query = t.prepare_cached("SELECT app FROM community WHERE id = ?1")?;
            match query.query_row([community], |row| row.get::<_, String>(0)).optional()? {
                Some(app) if !tenant.may(&app) => return Err(StoreError::Forbidden(format!("community {community}"))),
                Some(_) => {}
                None => {
                    let sql = "SELECT count(*) FROM community WHERE app = ?1";
                    let count: i64 = t.query_row(sql, [&*tenant.app], |row| row.get(0))?;
                    if count >= MAX_COMMUNITIES {
                        return Err(StoreError::Invalid(format!("an application has at most {MAX_COMMUNITIES} communities")));
                    }
                }
            }
            // With the community in it, so that it is found by its key.
            let token = format!("{}.{community}", write::invent('c', LETTERS)?);
            t.execute(
                "INSERT INTO community (id, app, token_sha256, expires_ms) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET token_sha256 = ?3, expires_ms = ?4",
                (community, &*tenant.app, hash(&token), now_ms + TOKEN_MS),
            )?;
            Ok(token)
        })
        .await
    }

    /// `token/refresh`: the same token lasts anew; who uses it meanwhile is not disturbed.
    pub async fn refresh_token(&self, tenant: Tenant, token: String, now_ms: i64) -> Result<(), StoreError> {
        self.transact(move |t| {
            let community = of_token(t, &tenant, &token, now_ms)?;
            t.execute("UPDATE community SET expires_ms = ?2 WHERE id = ?1", (community, now_ms + TOKEN_MS))?;
            Ok(())
        })
        .await
    }

    /// Is this a token of a community of the tenant, in force?
    pub async fn check_token(&self, tenant: Tenant, token: String, now_ms: i64) -> Result<(), StoreError> {
        self.transact(move |t| of_token(t, &tenant, &token, now_ms).map(|_| ())).await
    }
}

fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// The community of a token in force.
fn of_token(t: &Transaction<'_>, tenant: &Tenant, token: &str, now_ms: i64) -> Result<i64, StoreError> {
    let unknown = || StoreError::Forbidden("a cloudToken that is not in force".into());
    let community: i64 = token.split_once('.').and_then(|(_, id)| id.parse().ok()).ok_or_else(unknown)?;
    let sql = "SELECT app FROM community WHERE id = ?1 AND token_sha256 = ?2 AND expires_ms > ?3";
    let mut query = t.prepare_cached(sql)?;
    let app: Option<String> = query.query_row((community, hash(token), now_ms), |row| row.get(0)).optional()?;
    if app.is_some_and(|app| tenant.may(&app)) { Ok(community) } else { Err(unknown()) }
}
