//! Events over MQTT (spec events.md §2, §3): QoS 1, and what the broker has not acknowledged is published again after a
//! reconnect. Each connection begins behind the last acknowledged event, so nothing but the cursor outlives one.

#![allow(clippy::disallowed_methods)] // a shell: a connection and its pauses

use super::feed::unix_ms;
use super::log::{Cursor, Log, Logged, What};
use super::passage::Sender;
use super::post::trusting;
use super::selection::Selection;
use crate::model::{Secret, Tenant};
use crate::store::Store;
use rumqttc::{AsyncClient, Event, MqttOptions, Outgoing, Packet, QoS, TlsConfiguration, Transport};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Publications without an acknowledgement.
const WINDOW: usize = 32;
/// A broker that is not there is tried again after so long, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Where the store keeps how far it is.
const MARK: &str = "mqtt_cursor";

/// Where the broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    pub tls: bool,
    pub host: String,
    pub port: u16,
    pub user: Option<(String, Secret)>,
}

impl Broker {
    /// `mqtt://user:password@host:1883` or `mqtts://…`. An error says what is wrong and never holds the URL.
    pub fn parse(url: &str) -> Result<Broker, &'static str> {
        let (tls, rest) = match (url.strip_prefix("mqtt://"), url.strip_prefix("mqtts://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            (None, None) => return Err("does not begin with mqtt:// or mqtts://"),
        };
        let rest = rest.trim_end_matches('/');
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        let user = user.map(|user| user.split_once(':').unwrap_or((user, "")));
        let user = user.map(|(name, password)| (name.to_owned(), Secret::new(password)));
        let uri: axum::http::uri::Authority = place.parse().map_err(|_| "has no host")?;
        let odd_port = place.len() > uri.host().len() && uri.port_u16().is_none();
        let host = uri.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || place.contains('/') || odd_port {
            return Err("has no host, or an odd port");
        }
        Ok(Broker { tls, host, port: uri.port_u16().unwrap_or(if tls { 8883 } else { 1883 }), user })
    }
}

/// What the task works with.
pub struct Mqtt {
    pub broker: Broker,
    pub prefix: String,
    pub selection: Selection,
    pub log: Arc<Log>,
    pub store: Store,
    pub sender: Arc<Sender>,
}

/// Why a connection is over.
enum End {
    ServerStops,
    Lost(String),
}

/// What was published, until it is acknowledged.
struct Flight {
    event: i64,
    /// The packet's number, once it has left.
    packet: Option<u16>,
    acknowledged: bool,
}

impl Mqtt {
    /// Runs until the server stops.
    pub async fn run(self) {
        let mut at = match self.store.mark(MARK).await {
            Ok(Some(at)) => at,
            // A broker that is new gets what is new.
            _ => self.log.last(),
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let before = at;
            match self.session(&mut at).await {
                End::ServerStops => return,
                End::Lost(error) => {
                    if at > before {
                        pause = FIRST_PAUSE;
                    }
                    self.log.count("mqtt_connection_lost");
                    tracing::warn!(host = self.broker.host, error, "the MQTT broker is not reached");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection; `at` moves with what is acknowledged.
    async fn session(&self, at: &mut i64) -> End {
        let (client, mut events) = AsyncClient::new(self.options(), WINDOW * 2);
        // The event loop must not be dropped in the middle of a step.
        let (tell, mut told) = mpsc::channel(WINDOW * 4);
        let polling = tokio::spawn(async move {
            loop {
                let event = events.poll().await;
                let over = event.is_err();
                if tell.send(event).await.is_err() || over {
                    return;
                }
            }
        });
        let end = self.exchange(&client, &mut told, at).await;
        polling.abort();
        end
    }

    async fn exchange(
        &self,
        client: &AsyncClient,
        told: &mut mpsc::Receiver<Result<Event, rumqttc::ConnectionError>>,
        at: &mut i64,
    ) -> End {
        let tenant = Tenant { app: "".into(), all: true };
        let mut cursor = Cursor::new(self.log.clone(), self.store.clone(), tenant, self.selection, *at);
        let (mut connected, mut next, mut flights) = (false, VecDeque::new(), VecDeque::<Flight>::new());
        loop {
            tokio::select! {
                event = told.recv() => match event {
                    Some(Ok(Event::Incoming(Packet::ConnAck(_)))) => {
                        tracing::info!(host = self.broker.host, port = self.broker.port, "connected to the MQTT broker");
                        connected = true;
                    }
                    Some(Ok(Event::Outgoing(Outgoing::Publish(packet)))) => {
                        if let Some(flight) = flights.iter_mut().find(|flight| flight.packet.is_none()) {
                            flight.packet = Some(packet);
                        }
                    }
                    Some(Ok(Event::Incoming(Packet::PubAck(ack)))) => {
                        if let Some(flight) = flights.iter_mut().find(|f| f.packet == Some(ack.pkid) && !f.acknowledged) {
                            flight.acknowledged = true;
                        }
                        self.move_on(&mut flights, at).await;
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return End::Lost(error.to_string()),
                    None => return End::Lost("closed".to_owned()),
                },
                some = cursor.next(), if connected && next.is_empty() => match some {
                    Some(some) => next.extend(some),
                    None => return End::ServerStops,
                },
                open = self.log.newer(i64::MAX), if !connected => {
                    // Only the end of the server ends this wait.
                    let _ = open;
                    return End::ServerStops;
                }
            }
            while flights.len() < WINDOW
                && let Some(logged) = next.pop_front()
            {
                if let Err(error) = self.publish(client, &logged, &mut flights) {
                    return End::Lost(error);
                }
            }
        }
    }

    fn publish(&self, client: &AsyncClient, logged: &Logged, flights: &mut VecDeque<Flight>) -> Result<(), String> {
        if logged.wakes().is_some_and(|call| !self.log.still_rings(call)) {
            self.log.count("mqtt_ring_ended");
            return Ok(());
        }
        let Some(body) = logged.body(&self.sender) else { return Ok(()) };
        let topic = topic(&self.prefix, self.sender.uid_of(logged.app()), &logged.what);
        client.try_publish(topic, QoS::AtLeastOnce, false, body).map_err(|error| error.to_string())?;
        flights.push_back(Flight { event: logged.id, packet: None, acknowledged: false });
        Ok(())
    }

    /// Everything up to the first that is not acknowledged is done with.
    async fn move_on(&self, flights: &mut VecDeque<Flight>, at: &mut i64) {
        let before = *at;
        while let Some(done) = flights.pop_front_if(|flight| flight.acknowledged) {
            *at = done.event;
        }
        if *at != before && self.store.set_mark(MARK, *at).await.is_err() {
            // After a restart it may come twice, with the same id.
            self.log.count("mqtt_cursor_not_stored");
        }
    }

    fn options(&self) -> MqttOptions {
        let Broker { tls, host, port, user } = &self.broker;
        // A name of its own for each connection: the broker drops the older of two with the same.
        let mut options = MqttOptions::new(format!("doorline-{:x}", unix_ms()), host.clone(), *port);
        options.set_keep_alive(KEEP_ALIVE).set_clean_session(true);
        if let Some((name, password)) = user {
            options.set_credentials(name.clone(), password.reveal());
        }
        if *tls {
            options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(trusting())));
        }
        options
    }
}

/// Of the spec, behind the prefix.
fn topic(prefix: &str, uid: &str, what: &What) -> String {
    // What MQTT reserves has no place in a name.
    let uid: String = uid.chars().map(|c| if "+#/\0".contains(c) { '_' } else { c }).collect();
    match what {
        What::Event(_) => format!("{prefix}/broadcast/{uid}/vinotify"),
        What::Passage(_) => format!("{prefix}/broadcast/{uid}/homelink/videointercom"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_brokers() {
        let broker = Broker::parse("mqtt://me:s3cret@broker.example.com").unwrap();
        assert_eq!((broker.tls, broker.host.as_str(), broker.port), (false, "broker.example.com", 1883));
        assert_eq!(broker.user.as_ref().map(|(name, password)| (name.as_str(), password.reveal())), Some(("me", "s3cret")));
        assert!(!format!("{broker:?}").contains("s3cret"));
        let broker = Broker::parse("mqtts://127.0.0.1:1/").unwrap();
        assert_eq!((broker.tls, broker.port, broker.user), (true, 1, None));
        for bad in ["", "http://a", "mqtt://", "mqtt://u:p@", "mqtt://a:99999", "mqtt://a/b"] {
            assert!(Broker::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn topics_are_those_of_the_spec() {
        let passage = What::Passage(Box::default());
        assert_eq!(topic("", "u1", &passage), "/broadcast/u1/homelink/videointercom");
        assert_eq!(topic("site", "a/#", &passage), "site/broadcast/a__/homelink/videointercom");
    }
}
