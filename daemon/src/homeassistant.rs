//! Home Assistant's device discovery: one retained message from which it makes all entities.

use serde_json::{Value, json};

use crate::mqtt::topic::Topics;
use crate::serve::config::Config;
use crate::serve::status::{Model, NO_STYLE};

/// The choice among styles that leaves it to the pack.
const PACKS_OWN: &str = "default";
/// Longest state of a text entity; longer prompts go by JSON.
const TEXT_LENGTH_MAX: u32 = 255;

/// Topic and payload of the announcement.
pub fn discovery(config: &Config, topics: &Topics, model: &Model) -> (String, Value) {
    let id = format!("plantain_{}", config.device.replace('-', "_"));
    let unique = |name: &str| format!("{id}_{name}");
    let status = topics.status();
    let sensor = |name: &str, key: &str, template: &str, rest: Value| {
        let mut entity = json!({
            "p": "sensor", "unique_id": unique(key), "name": name, "stat_t": status, "val_tpl": template,
        });
        merge(&mut entity, rest);
        entity
    };
    let mut styles = vec![PACKS_OWN.to_owned(), NO_STYLE.to_owned()];
    styles.extend(model.styles.iter().cloned());
    let style_value =
        format!("{{{{ (value_json.defaults | default({{}})).style or '{PACKS_OWN}' }}}}");
    let style_command =
        format!("{{{{ {{'style': '' if value == '{PACKS_OWN}' else value}} | tojson }}}}");
    let components = json!({
        "image": {
            "p": "image", "unique_id": unique("image"), "name": "Picture", "img_t": topics.image(),
            "content_type": config.format.content_type(),
        },
        "prompt": {
            "p": "text", "unique_id": unique("prompt"), "name": "Prompt", "cmd_t": topics.prompt(),
            "max": TEXT_LENGTH_MAX.min(config.prompt_bytes_max), "icon": "mdi:palette",
        },
        "style": {
            "p": "select", "unique_id": unique("style"), "name": "Style", "cmd_t": topics.set(), "options": styles,
            "cmd_tpl": style_command, "stat_t": status, "val_tpl": style_value, "entity_category": "config",
            "icon": "mdi:brush",
        },
        "steps": {
            "p": "number", "unique_id": unique("steps"), "name": "Steps", "cmd_t": topics.set(), "min": 0,
            "max": config.steps_max, "step": 1, "cmd_tpl": "{{ {'steps': value | int} | tojson }}", "stat_t": status,
            "val_tpl": "{{ (value_json.defaults | default({})).steps or 0 }}", "entity_category": "config",
        },
        "guidance": {
            "p": "number", "unique_id": unique("guidance"), "name": "Guidance", "cmd_t": topics.set(), "min": 0,
            "max": 50, "step": 0.5, "cmd_tpl": "{{ {'guidance': value | float} | tojson }}", "stat_t": status,
            "val_tpl": "{{ (value_json.defaults | default({})).guidance or 0 }}", "entity_category": "config",
        },
        "cancel": {
            "p": "button", "unique_id": unique("cancel"), "name": "Cancel", "cmd_t": topics.cancel(),
            "payload_press": "current", "icon": "mdi:cancel",
        },
        "cancel_all": {
            "p": "button", "unique_id": unique("cancel_all"), "name": "Cancel all", "cmd_t": topics.cancel(),
            "payload_press": "all", "icon": "mdi:playlist-remove",
        },
        "state": sensor("State", "state", "{{ value_json.state }}", json!({"icon": "mdi:state-machine"})),
        "queue": sensor("Queue", "queue", "{{ (value_json.queue | default({})).waiting | default(none) }}", json!({"state_class": "measurement"})),
        "seconds": {
            "p": "sensor", "unique_id": unique("seconds"), "name": "Seconds a picture", "stat_t": topics.result(),
            "val_tpl": "{{ (value_json.seconds | default({})).total | default(none) }}", "unit_of_meas": "s", "dev_cla": "duration",
        },
        "temperature": sensor(
            "Temperature", "temperature", "{{ value_json.temperature_celsius | default(none) }}",
            json!({"unit_of_meas": "°C", "dev_cla": "temperature", "entity_category": "diagnostic"}),
        ),
        "memory": sensor(
            "Memory", "memory", "{{ (value_json.memory | default({})).rss_bytes | default(none) }}",
            json!({"unit_of_meas": "B", "dev_cla": "data_size", "entity_category": "diagnostic"}),
        ),
    });
    let payload = json!({
        "dev": {
            "ids": [id], "name": format!("plantain {}", config.device), "mf": "plantain", "mdl": model.name,
            "hw": model.board, "sw": env!("CARGO_PKG_VERSION"),
        },
        "o": {"name": "plantain", "sw": env!("CARGO_PKG_VERSION")},
        "cmps": components,
        "avty_t": status,
        "avty_tpl": "{{ 'offline' if value_json.state == 'offline' else 'online' }}",
        "qos": 1,
    });
    (format!("{}/device/{id}/config", config.home_assistant_prefix), payload)
}

fn merge(entity: &mut Value, rest: Value) {
    if let (Value::Object(entity), Value::Object(rest)) = (entity, rest) {
        entity.extend(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::config::Layer;

    #[test]
    fn announces_entities_with_their_own_ids_and_topics() {
        let config = Layer { device: Some("hall-2".into()), ..Layer::default() }.settle();
        let topics = Topics::new("plantain", "hall-2", "");
        let model = Model { styles: vec!["flat".into()], ..Model::nameless() };
        let (topic, payload) = discovery(&config, &topics, &model);
        assert_eq!(topic, "homeassistant/device/plantain_hall_2/config");
        let components = payload["cmps"].as_object().unwrap();
        let ids: std::collections::BTreeSet<&str> =
            components.values().map(|entity| entity["unique_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), components.len());
        assert!(components.values().all(|entity| entity["p"].is_string()));
        assert_eq!(payload["cmps"]["image"]["img_t"], "plantain/hall-2/image");
        assert_eq!(payload["cmps"]["style"]["options"], json!(["default", "none", "flat"]));
        assert!(payload["dev"]["ids"].is_array() && payload["o"]["name"] == "plantain");
    }
}
