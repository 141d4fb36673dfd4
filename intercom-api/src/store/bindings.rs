//! Bindings over UDP, kept for the next start (D-10).

use super::*;
use crate::live::{Kept, Restorable};
use sip_core::flow::{Flow, Transport};
use sip_core::location::Binding;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

impl Store {
    /// Writes or, where there is none, erases bindings by their rows.
    pub async fn keep(&self, rows: Vec<(i64, Option<Kept>)>) -> Result<(), StoreError> {
        self.transact(move |t| {
            let mut erase = t.prepare_cached("DELETE FROM binding WHERE id = ?1")?;
            let mut write = t.prepare_cached(
                "INSERT OR REPLACE INTO binding (id, number, made_with, contact, instance, reg_id, path, local, remote, call_id,
                    cseq, user_agent, registered_ms, expires_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
            )?;
            for (id, kept) in &rows {
                let Some(Kept { registration, made_with }) = kept else {
                    erase.execute([id])?;
                    continue;
                };
                let binding = &registration.binding;
                write.execute(rusqlite::params![
                    id,
                    binding.account,
                    made_with,
                    binding.contact_uri,
                    binding.instance,
                    binding.reg_id.map(NonZeroU32::get),
                    binding.path,
                    binding.flow.local.to_string(),
                    binding.flow.remote.to_string(),
                    binding.call_id,
                    binding.cseq,
                    binding.user_agent,
                    registration.registered_ms,
                    registration.expires_ms,
                ])?;
            }
            Ok(())
        })
        .await
    }

    /// What a former run left, by its rows, without what has expired; `now` is a moment on both clocks.
    pub async fn bindings(&self, now: (Instant, i64)) -> Result<Vec<(i64, Restorable)>, StoreError> {
        self.transact(move |t| {
            t.execute("DELETE FROM binding WHERE expires_ms <= ?1", [now.1])?;
            let mut query = t.prepare(
                "SELECT number, contact, instance, reg_id, path, local, remote, call_id, cseq, user_agent, registered_ms,
                    expires_ms, made_with, id FROM binding",
            )?;
            let rows = query.query_map([], |row| Ok((row.get(13)?, row.get(12)?, read_binding(row, now)?)))?;
            let rows = rows.collect::<Result<Vec<(i64, i64, Option<Binding>)>, _>>()?.into_iter();
            // An address that cannot be read leads nowhere.
            Ok(rows.filter_map(|(id, made_with, binding)| Some((id, Restorable { binding: binding?, made_with }))).collect())
        })
        .await
    }
}

fn read_binding(row: &Row<'_>, now: (Instant, i64)) -> rusqlite::Result<Option<Binding>> {
    let address = |text: String| text.parse::<SocketAddr>().ok();
    let (Some(local), Some(remote)) = (address(row.get(5)?), address(row.get(6)?)) else { return Ok(None) };
    let (registered_ms, expires_ms): (i64, i64) = (row.get(10)?, row.get(11)?);
    let span = |ms: i64| Duration::from_millis(ms.max(0).unsigned_abs());
    // A clock that was set back must not make a binding live longer than it was granted.
    let left = (expires_ms - now.1).min(expires_ms - registered_ms);
    let registered_at = now.0.checked_sub(span(now.1 - registered_ms)).unwrap_or(now.0);
    Ok(Some(Binding {
        account: row.get(0)?,
        contact_uri: row.get(1)?,
        instance: row.get(2)?,
        reg_id: row.get::<_, Option<u32>>(3)?.and_then(NonZeroU32::new),
        path: row.get(4)?,
        flow: Flow { transport: Transport::Udp, local, remote },
        registered_at,
        expires_at: now.0 + span(left),
        call_id: row.get(7)?,
        cseq: row.get(8)?,
        user_agent: row.get(9)?,
        written_as_of: registered_at,
        contested: 0,
        rival: None,
    }))
}
