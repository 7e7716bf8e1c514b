//! Home Assistant's device discovery: one retained message from which it makes all entities.

use serde_json::{Value, json};

use crate::mqtt::topic::Topics;
use crate::serve::config::Config;
use crate::serve::status::Model;

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
    let mut styles = vec![String::new()];
    styles.extend(model.styles.iter().cloned());
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
            "cmd_tpl": "{{ {'style': value} | tojson }}", "stat_t": status,
            "val_tpl": "{{ value_json.defaults.style or '' }}", "entity_category": "config",
        },
        "steps": {
            "p": "number", "unique_id": unique("steps"), "name": "Steps", "cmd_t": topics.set(), "min": 0,
            "max": config.steps_max, "step": 1, "cmd_tpl": "{{ {'steps': value | int} | tojson }}", "stat_t": status,
            "val_tpl": "{{ value_json.defaults.steps or 0 }}", "entity_category": "config",
        },
        "cancel": {
            "p": "button", "unique_id": unique("cancel"), "name": "Cancel", "cmd_t": topics.cancel(),
            "payload_press": "current", "icon": "mdi:cancel",
        },
        "state": sensor("State", "state", "{{ value_json.state }}", json!({"icon": "mdi:state-machine"})),
        "queue": sensor("Queue", "queue", "{{ value_json.queue.waiting }}", json!({"state_class": "measurement"})),
        "seconds": {
            "p": "sensor", "unique_id": unique("seconds"), "name": "Seconds a picture", "stat_t": topics.result(),
            "val_tpl": "{{ value_json.seconds.total | default(none) }}", "unit_of_meas": "s", "dev_cla": "duration",
        },
        "temperature": sensor(
            "Temperature", "temperature", "{{ value_json.temperature_celsius }}",
            json!({"unit_of_meas": "°C", "dev_cla": "temperature", "entity_category": "diagnostic"}),
        ),
        "memory": sensor(
            "Memory", "memory", "{{ value_json.memory.rss_bytes }}",
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
        let model = Model { styles: vec!["flat".into()], ..Model::default() };
        let (topic, payload) = discovery(&config, &topics, &model);
        assert_eq!(topic, "homeassistant/device/plantain_hall_2/config");
        let components = payload["cmps"].as_object().unwrap();
        let ids: std::collections::BTreeSet<&str> =
            components.values().map(|entity| entity["unique_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), components.len());
        assert!(components.values().all(|entity| entity["p"].is_string()));
        assert_eq!(payload["cmps"]["image"]["img_t"], "plantain/hall-2/image");
        assert_eq!(payload["cmps"]["style"]["options"], json!(["", "flat"]));
        assert!(payload["dev"]["ids"].is_array() && payload["o"]["name"] == "plantain");
    }
}
