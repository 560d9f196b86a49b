//! The scripted server of the client suites (`tests/clients/upstream.py`), and the models behind which it stands.
//!
//! Each suite has a model of its own, so that what one makes the server do concerns no other.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::environment;

/// The context of a scripted model, in tokens, and the longest answer.
const CONTEXT: &str = "4096";
const OUTPUT_MAX: &str = "512";

/// The server, until it is dropped.
pub struct Scripted {
    process: Child,
    pub address: String,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        // It has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Scripted {
    pub fn start(root: &Path) -> Result<Self> {
        let program = environment::PYTHON.bin(root).join("python");
        let script = root.join("tests/clients/upstream.py");
        // It ends when its input does, also if nobody is left to drop it.
        let process = Command::new(&program).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut scripted =
            Self { process: process.with_context(|| format!("start {}", program.display()))?, address: String::new() };
        let output = scripted.process.stdout.take().context("the scripted server has an output")?;
        BufReader::new(output).read_line(&mut scripted.address).context("the scripted server's address")?;
        scripted.address.truncate(scripted.address.trim_end().len());
        if scripted.address.is_empty() {
            bail!("the scripted server ended before it said its address");
        }
        Ok(scripted)
    }

    /// Makes it the replica of models, each with its room, priced as the model that ships.
    pub fn offer(&self, binary: &Path, data: &Path, models: &[(String, String)]) -> Result<()> {
        let sublet = |arguments: &[&str]| sublet(binary, data, arguments);
        for (name, room) in models {
            let added = sublet(&["models", "add", name, "--context", CONTEXT, "--max-output", OUTPUT_MAX])?;
            let id = added["id"].as_str().context("a remote model has an id")?;
            let base_url = format!("{}/{room}/v1", self.address);
            sublet(&["replicas", "add", id, "--base-url", &base_url, "--upstream-model", "theirs"])?;
        }
        let history = sublet(&["prices", "history"])?;
        let list = with_prices(&history["data"][0], models.iter().map(|(name, _)| name.as_str()))?;
        let file = data.join("scripted-prices.json");
        let mut out = std::fs::File::create(&file).context("the file of prices")?;
        out.write_all(list.to_string().as_bytes())?;
        sublet(&["prices", "publish", &file.to_string_lossy()])?;
        Ok(())
    }
}

fn sublet(binary: &Path, data: &Path, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(binary);
    command.arg("--data-dir").arg(data).arg("--json").args(arguments);
    let output = command.output().with_context(|| format!("start {}", binary.display()))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("what {command:?} wrote"))
}

/// A list to publish: the same prices, and those of its first model for others too.
fn with_prices<'a>(list: &Value, names: impl Iterator<Item = &'a str>) -> Result<Value> {
    let prices = list["prices"].as_array().context("a price list has prices")?;
    let is_model = |price: &&Value| price["subject"]["kind"] == "model";
    let first = prices.iter().find(is_model).context("a model has a price")?["subject"]["name"].clone();
    let of_first: Vec<&Value> = prices.iter().filter(is_model).filter(|price| price["subject"]["name"] == first).collect();
    let mut all = prices.clone();
    for name in names {
        all.extend(of_first.iter().map(|price| {
            let mut price = (*price).clone();
            price["subject"]["name"] = json!(name);
            price
        }));
    }
    Ok(json!({ "name": list["name"], "currency": list["currency"], "prices": all }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_models_have_all_prices_of_the_first() {
        let price =
            |kind: &str, name: &str, meter: &str| json!({"subject": {"kind": kind, "name": name}, "meter": meter, "amount": "1"});
        let list = json!({"id": "plist_1", "name": "list", "currency": "EUR", "prices": [
            price("model", "mini", "input_tokens"), price("model", "mini", "output_tokens"), price("sku", "cpu", "device_milliseconds"),
        ]});
        let published = with_prices(&list, ["a", "b"].into_iter()).unwrap();
        let names: Vec<&str> =
            published["prices"].as_array().unwrap().iter().filter_map(|price| price["subject"]["name"].as_str()).collect();
        assert_eq!((names, &published["currency"]), (vec!["mini", "mini", "cpu", "a", "a", "b", "b"], &json!("EUR")));
        assert!(with_prices(&json!({"prices": []}), ["a"].into_iter()).is_err());
    }
}
