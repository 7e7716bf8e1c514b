//! `plantain serve --demo`: a broker inside the process, one prompt, one picture.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{Packet, PublishProperties};
use rumqttc::v5::{AsyncClient, Event, MqttOptions};

use crate::cli::output;
use crate::mqtt::topic::Topics;

/// How long the whole loop may take.
const DEMO_SECONDS_MAX: u64 = 600;
/// Largest message that the demo's broker takes.
const PACKET_BYTES_MAX: usize = 16 << 20;

/// What the demo does.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The broker's port on 127.0.0.1.
    pub port: u16,
    /// What to draw.
    pub prompt: String,
    /// Where the picture goes.
    pub output: PathBuf,
}

/// Starts a broker for MQTT 5 on a free port of 127.0.0.1; it runs until the process ends.
///
/// # Errors
/// If there is no free port or no thread.
pub fn start_broker() -> anyhow::Result<u16> {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?.port();
    let config = format!(
        r#"
        id = 0
        [router]
        id = 0
        max_connections = 16
        max_outgoing_packet_count = 200
        max_segment_size = 33554432
        max_segment_count = 2
        [v5.1]
        name = "demo"
        listen = "127.0.0.1:{port}"
        next_connection_delay_ms = 1
        [v5.1.connections]
        connection_timeout_ms = 10000
        max_payload_size = {PACKET_BYTES_MAX}
        max_inflight_count = 100
        dynamic_filters = true
        "#
    );
    let config: rumqttd::Config =
        toml::from_str(&config).context("the demo broker's settings are not usable")?;
    let mut broker = rumqttd::Broker::new(config);
    std::thread::Builder::new().name("demo-broker".into()).spawn(move || {
        if let Err(error) = broker.start() {
            log::error!("the demo's broker has stopped: {error}");
        }
    })?;
    Ok(port)
}

/// Asks for a picture as any client would, and saves it.
///
/// # Errors
/// If no picture comes in time, or it cannot be saved.
pub async fn ask(demo: Demo, topics: Topics) -> anyhow::Result<()> {
    let limit = Duration::from_secs(DEMO_SECONDS_MAX);
    tokio::time::timeout(limit, ask_and_wait(&demo, &topics))
        .await
        .with_context(|| format!("no picture came within {DEMO_SECONDS_MAX} s"))?
}

async fn ask_and_wait(demo: &Demo, topics: &Topics) -> anyhow::Result<()> {
    let mut options = MqttOptions::new("plantain-demo-client", "127.0.0.1", demo.port);
    options.set_max_packet_size(Some(PACKET_BYTES_MAX as u32));
    let (client, mut events) = AsyncClient::new(options, 16);
    client.subscribe(topics.status(), QoS::AtLeastOnce).await?;
    client.subscribe(topics.image(), QoS::AtLeastOnce).await?;
    client.subscribe(topics.result(), QoS::AtLeastOnce).await?;
    let mut asked = false;
    let mut saved = false;
    loop {
        let event = match events.poll().await {
            Ok(event) => event,
            Err(error) => {
                log::debug!("the demo's client tries again: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Event::Incoming(Packet::Publish(message)) = event else { continue };
        let topic = String::from_utf8_lossy(&message.topic).into_owned();
        if topic == topics.status() && !asked {
            asked = true;
            println!("-> {} {:?}", topics.prompt(), demo.prompt);
            let properties = PublishProperties::default();
            let (topic, prompt) = (topics.prompt(), demo.prompt.clone());
            client
                .publish_with_properties(topic, QoS::AtLeastOnce, false, prompt, properties)
                .await?;
        } else if topic == topics.image() {
            println!("<- {topic} {} bytes", message.payload.len());
            output::write_whole(&demo.output, &message.payload)?;
            saved = true;
        } else if topic == topics.result() {
            println!("<- {topic} {}", String::from_utf8_lossy(&message.payload));
            if !saved {
                bail!("the prompt was answered without a picture");
            }
            println!("saved {}", demo.output.display());
            return Ok(());
        }
    }
}
