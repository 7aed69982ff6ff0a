//! Capturing a host that is live: what is read back is what is there, and nothing that identifies it.

use std::{fs, process::Command};

use serde_json::Value;

const MACHINE: &str = "/tmp/captured.toml";

/// The JSON that `narrows` prints. A refusal is an answer.
fn json(arguments: &[&str]) -> Value {
    let output = Command::new("narrows").args(arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

/// Makes paths below the machine file those of the host, and leaves out what is scrubbed: command line and addresses.
fn normalise(value: &mut Value) {
    match value {
        Value::String(text) => {
            let words = text.split(' ').map(|word| match is_mac(word) {
                true => "MAC",
                false => word,
            });
            *text = words
                .collect::<Vec<_>>()
                .join(" ")
                .replace(&format!("{MACHINE}/"), "/");
        }
        Value::Array(values) => values.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            fields.values_mut().for_each(normalise);
            if fields
                .get("source")
                .is_some_and(|source| source == "/proc/cmdline")
            {
                fields.remove("said");
            }
            fields.remove("cmdline");
            // What only the running kernel can tell.
            fields.remove("layers");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_mac(word: &str) -> bool {
    let is_byte = |digits: &str| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok();
    word.split(':').count() == 6 && word.split(':').all(is_byte)
}

/// Captures this host, and asserts that `doctor` and `inventory` say the same of the capture as of the host.
pub(crate) fn assert_capture_reads_as_live() {
    let captured = Command::new("narrows")
        .args(["capture", "--name", "lab", "--force", "-o", MACHINE])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&captured.stdout).into_owned();
    assert!(captured.status.success(), "{said}{captured:?}");
    assert!(said.contains("serial numbers"), "{said}");
    for verb in ["doctor", "inventory"] {
        let mut live = json(&[verb, "--json"]);
        let mut read = json(&["--root", MACHINE, verb, "--json"]);
        normalise(&mut live);
        normalise(&mut read);
        assert!(live.to_string().len() > 1000, "{live}");
        assert_eq!(read, live, "{verb}");
    }
    assert_scrubbed();
}

/// Asserts that what identifies this host is not in the capture, and that it could have been.
fn assert_scrubbed() {
    let text = fs::read_to_string(MACHINE).unwrap().to_lowercase();
    let mut identifiers = 0;
    for class in ["/sys/class/net", "/sys/class/nvme"] {
        for entry in fs::read_dir(class).unwrap() {
            let folder = entry.unwrap().path();
            for name in ["address", "serial"] {
                let Ok(id) = fs::read_to_string(folder.join(name)) else {
                    continue;
                };
                let id = id.trim().to_lowercase();
                // The loopback's address, and a controller's BDF, tell nothing.
                if id.is_empty() || id.starts_with("00:00:00:00") || id.starts_with("0000:") {
                    continue;
                }
                identifiers += 1;
                assert!(!text.contains(&id), "{id} of {}", folder.display());
                let bytes = id.replace(':', " ");
                assert!(!text.contains(&bytes), "{bytes} of {}", folder.display());
            }
        }
    }
    assert!(identifiers > 1, "this host has nothing to scrub");
    for id in ["52:54:00", "lab.vfs"] {
        assert!(!text.contains(id), "{id}");
    }
}
