//! What one client may ask for: prompts a minute, pictures a day, words that are refused.

use std::collections::HashMap;
use std::path::Path;

/// Clients whose use is remembered; beyond that the one that was seen longest ago is forgotten.
const CLIENTS_MAX: usize = 1024;

const MINUTE_MS: u64 = 60_000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Use by client, on a monotonic clock.
#[derive(Debug)]
pub struct Usage {
    rate_per_minute: u32,
    quota_per_day: u32,
    clients: HashMap<String, Client>,
}

#[derive(Debug)]
struct Client {
    /// Prompts that may come now; fills at the rate.
    allowance: f64,
    seen_ms: u64,
    day_start_ms: u64,
    pictures: u32,
}

impl Usage {
    /// Limits; 0 is none.
    pub fn new(rate_per_minute: u32, quota_per_day: u32) -> Self {
        Usage { rate_per_minute, quota_per_day, clients: HashMap::new() }
    }

    /// Counts a prompt for `pictures` pictures.
    ///
    /// # Errors
    /// One sentence for the sender if it has to wait; nothing is counted then.
    pub fn count(&mut self, client: &str, pictures: u32, now_ms: u64) -> Result<(), String> {
        let (rate, quota) = (self.rate_per_minute, self.quota_per_day);
        if rate == 0 && quota == 0 {
            return Ok(());
        }
        self.make_room(client);
        let entry = self.clients.entry(client.to_owned()).or_insert(Client {
            allowance: f64::from(rate),
            seen_ms: now_ms,
            day_start_ms: now_ms,
            pictures: 0,
        });
        let passed_ms = now_ms.saturating_sub(entry.seen_ms);
        entry.seen_ms = now_ms;
        entry.allowance = (entry.allowance + passed_ms as f64 * f64::from(rate) / MINUTE_MS as f64)
            .min(f64::from(rate));
        if now_ms.saturating_sub(entry.day_start_ms) >= DAY_MS {
            entry.day_start_ms = now_ms;
            entry.pictures = 0;
        }
        if rate > 0 && entry.allowance < 1.0 {
            return Err(format!(
                "this client has sent its {rate} prompts of this minute; send the next one later"
            ));
        }
        if quota > 0 && entry.pictures.saturating_add(pictures) > quota {
            let drawn = entry.pictures;
            return Err(format!(
                "this client has had {drawn} of its {quota} pictures of this day; ask for fewer or wait"
            ));
        }
        entry.allowance -= 1.0;
        entry.pictures += pictures;
        Ok(())
    }

    fn make_room(&mut self, client: &str) {
        if self.clients.len() < CLIENTS_MAX || self.clients.contains_key(client) {
            return;
        }
        let oldest = self
            .clients
            .iter()
            .min_by_key(|(_, entry)| entry.seen_ms)
            .map(|(name, _)| name.clone());
        if let Some(name) = oldest {
            self.clients.remove(&name);
        }
    }
}

/// Words that a prompt must not contain.
#[derive(Debug, Default)]
pub struct DenyWords(Vec<String>);

impl DenyWords {
    /// Reads a file with one word or phrase a line; `#` starts a comment.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default());
        Ok(DenyWords(lines.map(words).filter(|line| !line.trim().is_empty()).collect()))
    }

    /// Whether a prompt contains one of them as whole words.
    pub fn denies(&self, prompt: &str) -> bool {
        let prompt = words(prompt);
        self.0.iter().any(|denied| prompt.contains(denied))
    }
}

/// Lower-case words with one space before, between and behind them.
fn words(text: &str) -> String {
    let mut out = String::from(" ");
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        out.push_str(&word.to_lowercase());
        out.push(' ');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_by_client_and_fills_again() {
        let mut usage = Usage::new(2, 5);
        assert!(usage.count("a", 1, 0).is_ok() && usage.count("a", 1, 0).is_ok());
        assert!(usage.count("a", 1, 0).unwrap_err().contains("2 prompts"));
        assert!(usage.count("b", 1, 0).is_ok());
        assert!(usage.count("a", 1, 30_000).is_ok());
        assert!(usage.count("a", 3, 90_000).unwrap_err().contains("3 of its 5 pictures"));
        assert!(usage.count("a", 3, DAY_MS).is_ok());
    }

    #[test]
    fn remembers_a_bounded_number_of_clients() {
        let mut usage = Usage::new(1, 0);
        for client in 0..5000u64 {
            usage.count(&client.to_string(), 1, client).unwrap();
        }
        assert_eq!(usage.clients.len(), CLIENTS_MAX);
    }

    #[test]
    fn denies_whole_words() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# operators' list\nGun\nbig secret # phrase\n\n").unwrap();
        let words = DenyWords::read(file.path()).unwrap();
        assert!(words.denies("a GUN, please") && words.denies("the big  secret"));
        assert!(!words.denies("a gunboat") && !words.denies("a big apple"));
    }
}
