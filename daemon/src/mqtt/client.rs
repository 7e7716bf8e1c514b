//! One connection to the broker, made again when it is lost: the only module that knows rumqttc.
//!
//! rumqttc keeps unacknowledged publishes in memory and sends them again by itself. Here every connection is a fresh
//! one and the journal decides what is sent again, so that there is one place that knows what was answered.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    LastWill, Packet, PubAckReason, Publish, PublishProperties, SubscribeReasonCode,
};
use rumqttc::v5::{AsyncClient, ConnectionError, MqttOptions};
use rumqttc::{NetworkOptions, Outgoing, TlsConfiguration, Transport};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::reason::{explain, is_taken_over};
use super::tls::{self, TlsError};
use crate::serve::config::Config;

/// Requests that may lie between the daemon and the socket.
const REQUESTS_MAX: usize = 64;
/// How long connecting may take.
const CONNECT_SECONDS_MAX: u64 = 10;
/// Messages in flight from the broker that are not acknowledged yet, if no group limits them.
const RECEIVE_MAXIMUM: u16 = 64;

/// A message to send, at least once.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Kept by the broker for later subscribers.
    pub retain: bool,
    /// MQTT 5 content type.
    pub content_type: Option<&'static str>,
    /// MQTT 5 correlation data.
    pub correlation: Option<Vec<u8>>,
    /// MQTT 5 user properties.
    pub properties: Vec<(String, String)>,
    /// Comes back in [`Event::Sent`] when it has left, and in [`Event::Delivered`] when the broker has it.
    pub token: Option<u64>,
    /// Sent at most once instead: progress.
    pub at_most_once: bool,
}

impl Outbound {
    /// An upper bound of the packet's size: MQTT 5, 3.3.
    pub fn packet_bytes(&self) -> usize {
        let properties: usize =
            self.properties.iter().map(|(key, value)| 5 + key.len() + value.len()).sum();
        let content_type = self.content_type.map_or(0, |kind| 3 + kind.len() + 2);
        let correlation = self.correlation.as_ref().map_or(0, |data| 3 + data.len());
        // Type and length, topic, packet id, length of the properties.
        let fixed = 5 + 2 + self.topic.len() + 2 + 4;
        fixed + properties + content_type + correlation + self.payload.len()
    }
}

/// A received message.
#[derive(Clone, Debug)]
pub struct Message {
    /// When it was read.
    pub received: Instant,
    /// Where it was sent.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// The broker had kept it.
    pub retained: bool,
    /// MQTT 5 response topic.
    pub response_topic: Option<String>,
    /// MQTT 5 correlation data.
    pub correlation: Option<Vec<u8>>,
    /// MQTT 5 message expiry, what is left of it.
    pub expiry_seconds: Option<u32>,
    /// MQTT 5 user properties.
    pub properties: Vec<(String, String)>,
    /// To be acknowledged.
    pub delivery: Delivery,
}

/// A received message's place in the connection it came by.
#[derive(Clone, Debug)]
pub struct Delivery {
    connection: u64,
    publish: Publish,
}

/// What happens on the connection.
#[derive(Debug)]
pub enum Event {
    /// It is there; subscribe now.
    Connected {
        /// Largest packet that the broker takes.
        packet_bytes_max: Option<u32>,
    },
    /// A message came.
    Message(Box<Message>),
    /// A message has left through the socket, and when.
    Sent(u64, Instant),
    /// The broker has a message, or will never have it: it refused it, or it is larger than the broker takes.
    Delivered(u64),
    /// It is gone, or could not be made; the next call of [`Connection::next`] waits and tries again.
    Lost(String),
}

/// What the task that owns rumqttc's event loop tells.
enum Raw {
    /// A new connection is being made; requests go here.
    Fresh(AsyncClient),
    Event(Box<rumqttc::v5::Event>, Instant),
    Lost(ConnectionError),
}

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A TLS file is not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no thread.
    #[error("the connection cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// The daemon's end of the connection to the broker.
pub struct Connection {
    raw: Receiver<Raw>,
    client: Option<AsyncClient>,
    connected: bool,
    number: u64,
    /// Acknowledgements that wait for room in rumqttc's channel; they go first.
    acks: VecDeque<Publish>,
    /// Messages that wait for room in it.
    outbox: VecDeque<Outbound>,
    /// Handed to rumqttc, without a packet id yet, in order; `None` for those without a token.
    handed: VecDeque<Option<u64>>,
    /// Sent and not acknowledged, by packet id.
    in_flight: HashMap<u16, Option<u64>>,
    packet_bytes_max: Option<u32>,
    /// Tokens of messages that are too large for the broker.
    too_large: VecDeque<u64>,
}

/// Makes connections, one after another. It is a task of its own because rumqttc's `poll` must not be cancelled while it connects.
async fn keep_connecting(options: MqttOptions, pause_ms_max: u64, out: Sender<Raw>) {
    // `poll` returns once a keep-alive at least, but for a broker that takes nothing any more while its connection stands.
    let patience = 2 * options.keep_alive() + Duration::from_secs(options.connection_timeout());
    let mut failures = 0u32;
    loop {
        let (client, mut events) = AsyncClient::new(options.clone(), REQUESTS_MAX);
        if out.send(Raw::Fresh(client)).await.is_err() {
            return;
        }
        let error = loop {
            let event = match tokio::time::timeout(patience, events.poll()).await {
                Ok(event) => event,
                Err(elapsed) => break ConnectionError::Timeout(elapsed),
            };
            match event {
                Ok(event) => {
                    if matches!(event, rumqttc::v5::Event::Incoming(Packet::ConnAck(_))) {
                        failures = 0;
                    }
                    if out.send(Raw::Event(Box::new(event), Instant::now())).await.is_err() {
                        return;
                    }
                }
                Err(error) => break error,
            }
        };
        // Two daemons with one client id would else take the session from each other without a pause.
        let pause_ms = if is_taken_over(&error) {
            pause_ms_max
        } else {
            (250 << failures.min(16)).min(pause_ms_max)
        };
        if out.send(Raw::Lost(error)).await.is_err() {
            return;
        }
        failures += 1;
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
}

impl Connection {
    /// A connection as configured; `will` is published, retained, when it is lost. It runs on a thread of its own, so that
    /// what was handed to it leaves, and keep-alives are kept, while the daemon waits for the disk.
    ///
    /// # Errors
    /// [`OpenError`] if TLS is configured and its files are not usable, or there is no thread.
    pub fn open(
        config: &Config,
        password: Option<String>,
        will: (String, Vec<u8>),
    ) -> Result<Self, OpenError> {
        let (host, port, is_tls) = config.broker_address().unwrap_or_default();
        let mut options = MqttOptions::new(config.client_id(), host, port);
        options.set_keep_alive(Duration::from_secs(u64::from(config.keep_alive_seconds)));
        options.set_clean_start(false);
        options.set_session_expiry_interval(Some(config.session_expiry_seconds));
        options.set_manual_acks(true);
        let queue_length = u16::try_from(config.queue_length).unwrap_or(u16::MAX);
        options.set_receive_maximum(Some(if config.group.is_empty() {
            RECEIVE_MAXIMUM
        } else {
            queue_length
        }));
        // The broker drops what is larger, so that a huge message cannot end the connection for ever.
        options.set_max_packet_size(Some(16 * config.prompt_bytes_max + 16 * 1024));
        options.set_connection_timeout(CONNECT_SECONDS_MAX);
        // What is sent last before a pause, such as the result behind a picture, must not wait for the acknowledgement
        // of what went before.
        let mut network = NetworkOptions::new();
        network.set_tcp_nodelay(true);
        options.set_network_options(network);
        options.set_pending_throttle(Duration::ZERO);
        options.set_last_will(LastWill::new(will.0, will.1, QoS::AtLeastOnce, true, None));
        if !config.username.is_empty() {
            options.set_credentials(&config.username, password.unwrap_or_default());
        }
        if is_tls {
            let tls = tls::client_config(&config.ca_file, &config.client_cert, &config.client_key)?;
            options.set_transport(Transport::Tls(TlsConfiguration::Rustls(tls)));
        }
        let (out, raw) = channel(REQUESTS_MAX);
        let pause_ms_max = u64::from(config.reconnect_seconds_max) * 1000;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name("mqtt".into()).spawn(move || {
            runtime.block_on(keep_connecting(options, pause_ms_max, out));
        })?;
        Ok(Connection {
            raw,
            client: None,
            connected: false,
            number: 0,
            acks: VecDeque::new(),
            outbox: VecDeque::new(),
            handed: VecDeque::new(),
            in_flight: HashMap::new(),
            packet_bytes_max: None,
            too_large: VecDeque::new(),
        })
    }

    /// Whether the broker is there.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Subscribes, at least once or at most once. Retained messages of normal subscriptions come too and are told apart by
    /// their flag.
    pub fn subscribe(&self, filter: &str, at_most_once: bool) {
        let Some(client) = &self.client else { return };
        let qos = if at_most_once { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        if let Err(error) = client.try_subscribe(filter, qos) {
            log::warn!("the subscription to {filter} could not be requested: {error}");
        }
    }

    /// Sends a message; if the connection is gone, it is dropped, and what matters is sent again by the journal. One that the
    /// broker cannot take is dropped with a warning: sending it would end the connection, each time.
    pub fn publish(&mut self, message: Outbound) {
        if !self.connected {
            return;
        }
        let (bytes, max) = (message.packet_bytes(), self.packet_bytes_max);
        if let Some(max) = max.filter(|&max| bytes > max as usize) {
            log::warn!(
                "a message for {} has {bytes} bytes but the broker takes {max}; raise its limit",
                message.topic
            );
            self.too_large.extend(message.token);
            return;
        }
        self.outbox.push_back(message);
        self.pump();
    }

    /// Messages and acknowledgements that are on their way to the broker.
    pub fn backlog(&self) -> usize {
        self.acks.len() + self.outbox.len() + self.handed.len() + self.in_flight.len()
    }

    fn pump(&mut self) {
        let Some(client) = &self.client else { return };
        // While the broker is slow to take what is sent, it gets no acknowledgements, and so sends no more than RECEIVE_MAXIMUM.
        while self.outbox.len() < REQUESTS_MAX
            && let Some(publish) = self.acks.front()
        {
            if client.try_ack(publish).is_err() {
                return;
            }
            self.acks.pop_front();
        }
        while let Some(message) = self.outbox.front() {
            let qos = if message.at_most_once { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            let properties = PublishProperties {
                payload_format_indicator: message
                    .content_type
                    .map(|kind| u8::from(kind == "application/json")),
                correlation_data: message.correlation.clone().map(Into::into),
                user_properties: message.properties.clone(),
                content_type: message.content_type.map(str::to_owned),
                ..PublishProperties::default()
            };
            let sent = client.try_publish_with_properties(
                message.topic.clone(),
                qos,
                message.retain,
                message.payload.clone(),
                properties,
            );
            if sent.is_err() {
                return;
            }
            if !message.at_most_once {
                self.handed.push_back(message.token);
            }
            self.outbox.pop_front();
        }
    }

    /// Acknowledges a message; one that came by an earlier connection will come again and is left.
    pub fn acknowledge(&mut self, delivery: Delivery) {
        if delivery.connection == self.number && self.connected {
            self.acks.push_back(delivery.publish);
            self.pump();
        }
    }

    /// Says goodbye, so that the broker keeps the session and does not publish the will.
    pub fn disconnect(&self) {
        if let Some(client) = &self.client
            && let Err(error) = client.try_disconnect()
        {
            log::debug!("no goodbye could be said to the broker: {error}");
        }
    }

    /// Waits for the next event; `None` only if the runtime is ending. Must be called all the time: it also sends.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            self.pump();
            if let Some(token) = self.too_large.pop_front() {
                return Some(Event::Delivered(token));
            }
            match self.raw.recv().await? {
                Raw::Fresh(client) => self.client = Some(client),
                Raw::Event(event, at) => {
                    if let Some(event) = self.translate(*event, at) {
                        return Some(event);
                    }
                }
                Raw::Lost(error) => return Some(self.lost(&error)),
            }
        }
    }

    fn lost(&mut self, error: &ConnectionError) -> Event {
        self.connected = false;
        self.client = None;
        self.acks.clear();
        self.outbox.clear();
        self.handed.clear();
        self.in_flight.clear();
        self.too_large.clear();
        Event::Lost(explain(error))
    }

    fn translate(&mut self, event: rumqttc::v5::Event, at: Instant) -> Option<Event> {
        match event {
            rumqttc::v5::Event::Outgoing(Outgoing::Publish(packet)) if packet != 0 => {
                let token = self.handed.pop_front().flatten();
                self.in_flight.insert(packet, token);
                token.map(|token| Event::Sent(token, at))
            }
            rumqttc::v5::Event::Outgoing(Outgoing::Disconnect) => {
                self.connected = false;
                Some(Event::Lost("goodbye was said".to_owned()))
            }
            rumqttc::v5::Event::Outgoing(_) => None,
            rumqttc::v5::Event::Incoming(packet) => self.incoming(packet, at),
        }
    }

    fn incoming(&mut self, packet: Packet, at: Instant) -> Option<Event> {
        match packet {
            Packet::ConnAck(ack) => {
                self.connected = true;
                self.number += 1;
                let packet_bytes_max =
                    ack.properties.and_then(|properties| properties.max_packet_size);
                self.packet_bytes_max = packet_bytes_max;
                Some(Event::Connected { packet_bytes_max })
            }
            Packet::PubAck(ack) => {
                let fine = matches!(
                    ack.reason,
                    PubAckReason::Success | PubAckReason::NoMatchingSubscribers
                );
                if !fine {
                    log::warn!(
                        "the broker refused a message: {:?}; check its permissions and quotas",
                        ack.reason
                    );
                }
                self.in_flight.remove(&ack.pkid).flatten().map(Event::Delivered)
            }
            Packet::SubAck(ack) => {
                for code in ack.return_codes {
                    if !matches!(code, SubscribeReasonCode::Success(_)) {
                        log::error!(
                            "the broker refused a subscription: {code:?}; check its permissions for this user"
                        );
                    }
                }
                None
            }
            Packet::Publish(publish) => Some(Event::Message(Box::new(self.message(publish, at)))),
            _ => None,
        }
    }

    fn message(&self, publish: Publish, received: Instant) -> Message {
        let properties = publish.properties.clone().unwrap_or_default();
        Message {
            received,
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            retained: publish.retain,
            response_topic: properties.response_topic,
            correlation: properties.correlation_data.map(|data| data.to_vec()),
            expiry_seconds: properties.message_expiry_interval,
            properties: properties.user_properties,
            delivery: Delivery { connection: self.number, publish },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_never_larger_than_its_bound() {
        use rumqttc::v5::mqttbytes::v5::Publish as Wire;
        let message = Outbound {
            topic: "plantain/kitchen/image".into(),
            payload: vec![7; 300],
            content_type: Some("image/png"),
            correlation: Some(vec![1; 20]),
            properties: vec![("job".into(), "j".repeat(40)), ("index".into(), "0".into())],
            ..Outbound::default()
        };
        let properties = PublishProperties {
            payload_format_indicator: Some(0),
            correlation_data: message.correlation.clone().map(Into::into),
            user_properties: message.properties.clone(),
            content_type: message.content_type.map(str::to_owned),
            ..PublishProperties::default()
        };
        let (topic, payload) = (message.topic.clone(), message.payload.clone());
        let mut wire = Wire::new(topic, QoS::AtLeastOnce, payload, Some(properties));
        wire.pkid = 9;
        let bytes = wire.size();
        let bound = message.packet_bytes();
        assert!((bytes..bytes + 8).contains(&bound), "{bytes} bytes, bound {bound}");
    }
}
