//! Topics of one device: `BASE/DEVICE/...`.

/// The topics that a device uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    root: String,
    group_prompt: Option<String>,
    group_filter: Option<String>,
}

/// What a message's topic says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A prompt for this device.
    Prompt,
    /// A prompt for whoever in the group takes it.
    GroupPrompt,
    /// A job to be taken back.
    Cancel,
    /// Defaults to be set.
    Set,
    /// Home Assistant came or went.
    HomeAssistant,
}

impl Topics {
    /// Topics under `base/device`, and of a group if it is not empty.
    pub fn new(base: &str, device: &str, group: &str) -> Self {
        let group_prompt = (!group.is_empty()).then(|| format!("{base}/{group}/prompt"));
        let group_filter = group_prompt.as_ref().map(|topic| format!("$share/{group}/{topic}"));
        Topics { root: format!("{base}/{device}"), group_prompt, group_filter }
    }

    /// Prompts in.
    pub fn prompt(&self) -> String {
        format!("{}/prompt", self.root)
    }

    /// The newest picture, retained.
    pub fn image(&self) -> String {
        format!("{}/image", self.root)
    }

    /// One result a job.
    pub fn result(&self) -> String {
        format!("{}/result", self.root)
    }

    /// Steps of the job that is being drawn.
    pub fn progress(&self) -> String {
        format!("{}/progress", self.root)
    }

    /// The device's state, retained; its will says offline.
    pub fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    /// Jobs to be taken back.
    pub fn cancel(&self) -> String {
        format!("{}/cancel", self.root)
    }

    /// Defaults to be set.
    pub fn set(&self) -> String {
        format!("{}/set", self.root)
    }

    /// The shared subscription of the group (MQTT 5, 4.8.2).
    pub fn group_filter(&self) -> Option<&str> {
        self.group_filter.as_deref()
    }

    /// What came under this topic.
    pub fn classify(&self, topic: &str, home_assistant_prefix: &str) -> Option<Incoming> {
        if self.group_prompt.as_deref() == Some(topic) {
            return Some(Incoming::GroupPrompt);
        }
        if topic.strip_prefix(home_assistant_prefix) == Some("/status") {
            return Some(Incoming::HomeAssistant);
        }
        match topic.strip_prefix(&self.root)? {
            "/prompt" => Some(Incoming::Prompt),
            "/cancel" => Some(Incoming::Cancel),
            "/set" => Some(Incoming::Set),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_its_own_topics_only() {
        let topics = Topics::new("plantain", "kitchen", "house");
        let of = |topic| topics.classify(topic, "homeassistant");
        assert_eq!(of("plantain/kitchen/prompt"), Some(Incoming::Prompt));
        assert_eq!(of("plantain/house/prompt"), Some(Incoming::GroupPrompt));
        assert_eq!(of("plantain/kitchen2/prompt"), None);
        assert_eq!(of("plantain/kitchen/image"), None);
        assert_eq!(of("homeassistant/status"), Some(Incoming::HomeAssistant));
        assert_eq!(topics.group_filter(), Some("$share/house/plantain/house/prompt"));
    }
}
