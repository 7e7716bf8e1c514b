//! Licences, banned crates and sources of every dependency, against `deny.toml`.
//!
//! The file is cargo-deny's own; this reader covers the part that needs no network and no extra tool to build.

use crate::command::{Run, find_program};
use crate::workspace;
use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    name: String,
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    #[serde(default)]
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Checks the workspace; `cargo deny` itself runs as well where it is installed.
pub fn run() -> Result<()> {
    let text = std::fs::read_to_string(workspace::root().join("deny.toml"))
        .context("deny.toml cannot be read")?;
    let deny: Deny = toml::from_str(&text).context("deny.toml")?;
    let json =
        Run::cargo().args(["metadata", "--format-version", "1", "--all-features"]).output()?;
    let metadata: Metadata = serde_json::from_str(&json).context("output of cargo metadata")?;
    let findings = check(&deny, &metadata.packages);
    if !findings.is_empty() {
        bail!("{}", findings.join("\n"));
    }
    println!("licences: {} packages, all allowed by deny.toml", metadata.packages.len());
    if find_program("cargo-deny").is_some() {
        Run::cargo().args(["deny", "check", "licenses", "bans", "sources"]).run()?;
    }
    Ok(())
}

fn check(deny: &Deny, packages: &[Package]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        if let Some(ban) = deny.bans.deny.iter().find(|ban| ban.name == package.name) {
            findings.push(format!("{name} is banned: {}", ban.reason));
        }
        if let Some(source) = &package.source
            && !source.starts_with("registry+https://github.com/rust-lang/crates.io-index")
        {
            findings.push(format!("{name} comes from {source}; only crates.io is allowed"));
        }
        match &package.license {
            None => findings.push(format!("{name} states no licence")),
            Some(licence) => {
                let exception = deny.licenses.exceptions.iter().find(|e| e.name == package.name);
                let extra = exception.map_or(&[][..], |exception| &exception.allow[..]);
                if let Some(why) = refused(licence, &deny.licenses.allow, extra) {
                    findings.push(format!("{name}: {why}"));
                }
            }
        }
    }
    findings
}

/// Why an SPDX expression is not allowed, or `None` if it is.
fn refused(licence: &str, allow: &[String], extra: &[String]) -> Option<String> {
    let expression = match spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("licence `{licence}` cannot be read: {}", error.reason)),
    };
    let allowed = |requirement: &spdx::LicenseReq| {
        let text = requirement.to_string();
        allow.iter().chain(extra).any(|name| *name == text)
    };
    (!expression.evaluate(allowed)).then(|| {
        format!("licence `{licence}` is not in deny.toml; choose another crate or allow it there")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deny() -> Deny {
        toml::from_str(
            r#"
            licenses = { allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"] }
            bans = { deny = [{ crate = "openssl-sys", reason = "TLS is rustls" }] }
            "#,
        )
        .unwrap()
    }

    fn package(name: &str, license: Option<&str>, source: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(Into::into),
            source: source.map(Into::into),
        }
    }

    #[test]
    fn expressions_are_evaluated() {
        let allow = deny().licenses.allow;
        for licence in
            ["MIT", "MIT/Apache-2.0", "GPL-3.0-only OR MIT", "Apache-2.0 WITH LLVM-exception"]
        {
            assert_eq!(refused(licence, &allow, &[]), None, "{licence}");
        }
        for licence in ["GPL-3.0-only", "MIT AND MPL-2.0", "not a licence"] {
            assert!(refused(licence, &allow, &[]).is_some(), "{licence}");
        }
        assert_eq!(refused("MPL-2.0", &allow, &["MPL-2.0".into()]), None);
    }

    #[test]
    fn bans_sources_and_silence_are_found() {
        let packages = [
            package("fine", Some("MIT"), None),
            package("openssl-sys", Some("MIT"), None),
            package("elsewhere", Some("MIT"), Some("git+https://example.org/x")),
            package("silent", None, None),
        ];
        let findings = check(&deny(), &packages);
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[0].contains("banned: TLS is rustls"));
    }
}
