//! An audit as SARIF 2.1.0: a rule for each kind of finding, a result for each finding, at its
//! migration's file where it has one.

use std::{collections::BTreeMap, path::Path};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;

use crate::{
    cli::render::{
        json::word,
        text::{clean, rfc3339},
    },
    rpc::proto::{Audit, AuditedDatabase, Finding, Severity},
};

/// What stands for itself in a URI's path.
const IN_A_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// The whole log.
#[derive(Debug, Serialize)]
pub struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    automation_details: AutomationDetails,
    invocations: [Invocation; 1],
    results: Vec<Outcome>,
}

#[derive(Debug, Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Debug, Serialize)]
struct Driver {
    name: &'static str,
    version: &'static str,
    rules: Vec<Rule>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: String,
    short_description: Text,
    help: Text,
    default_configuration: Configuration,
}

#[derive(Debug, Serialize)]
struct Configuration {
    level: &'static str,
}

#[derive(Debug, Serialize)]
struct Text {
    text: String,
}

/// Runs of one schedule belong together.
#[derive(Debug, Serialize)]
struct AutomationDetails {
    id: String,
    guid: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Invocation {
    execution_successful: bool,
    start_time_utc: Option<String>,
    end_time_utc: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    rule_id: String,
    rule_index: usize,
    level: &'static str,
    message: Text,
    locations: [Location; 1],
    /// By these a result is known again in the next run.
    partial_fingerprints: BTreeMap<&'static str, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    #[serde(skip_serializing_if = "Option::is_none")]
    physical_location: Option<PhysicalLocation>,
    logical_locations: [LogicalLocation; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Region,
}

#[derive(Debug, Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct LogicalLocation {
    fully_qualified_name: String,
    kind: &'static str,
}

impl Log {
    /// The log of one audit.
    pub fn new(audit: &Audit) -> Self {
        let mut rules = Vec::new();
        let results = audit
            .databases
            .iter()
            .flat_map(|database| database.findings.iter().map(move |finding| (database, finding)));
        let results = results.map(|(database, finding)| outcome(database, finding, &mut rules)).collect();
        let driver = Driver { name: "nexus", version: env!("CARGO_PKG_VERSION"), rules };
        let invocation = Invocation {
            execution_successful: audit.databases.iter().all(|database| !database.unreadable),
            start_time_utc: rfc3339(audit.started_at.as_ref()),
            end_time_utc: rfc3339(audit.ended_at.as_ref()),
        };
        let run = Run {
            tool: Tool { driver },
            automation_details: AutomationDetails {
                id: format!("nexus-audit/{}/{}", clean(&audit.name), audit.id),
                guid: audit.id.clone(),
            },
            invocations: [invocation],
            results,
        };
        Self { schema: "https://json.schemastore.org/sarif-2.1.0.json", version: "2.1.0", runs: [run] }
    }
}

fn outcome(database: &AuditedDatabase, finding: &Finding, rules: &mut Vec<Rule>) -> Outcome {
    let id = word(finding.kind().as_str_name(), "FINDING_KIND_");
    let level = level(finding.severity());
    let known = rules.iter().position(|rule| rule.id == id);
    let rule_index = known.unwrap_or_else(|| {
        rules.push(Rule {
            id: id.clone(),
            short_description: Text { text: id.replace('_', " ") },
            help: Text { text: clean(&finding.remedy) },
            default_configuration: Configuration { level },
        });
        rules.len() - 1
    });
    let name = clean(&database.database);
    let subject = clean(&finding.subject);
    let about = if subject.is_empty() { name.clone() } else { format!("{name}: {subject}") };
    let lines: Vec<_> = finding.evidence.iter().map(|line| format!("\n{}", clean(line))).collect();
    let text = format!("{about}: {}{}", clean(&finding.message), lines.concat());
    let file = database.files.get(&finding.subject);
    let physical_location = file.map(|file| PhysicalLocation {
        artifact_location: ArtifactLocation { uri: uri(file) },
        region: Region { start_line: 1 },
    });
    Outcome {
        rule_index,
        level,
        message: Text { text },
        partial_fingerprints: [("nexusFinding/v1", format!("{name}/{id}/{subject}"))].into(),
        locations: [Location {
            physical_location,
            logical_locations: [LogicalLocation { fully_qualified_name: name, kind: "database" }],
        }],
        rule_id: id,
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "error",
        Severity::Warning => "warning",
        Severity::Info | Severity::Unspecified => "note",
    }
}

/// A file's URI: relative where the path is, so that it is found in the repository.
fn uri(file: &str) -> String {
    let path = Path::new(file);
    let mut parts: Vec<_> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir if matches!(parts.last(), Some(&last) if last != "..") => {
                parts.pop();
            }
            std::path::Component::ParentDir => parts.push(".."),
            std::path::Component::Normal(part) => parts.extend(part.to_str()),
            _ => {}
        }
    }
    let scheme = if path.is_absolute() { "file:///" } else { "" };
    format!("{scheme}{}", utf8_percent_encode(&parts.join("/"), IN_A_PATH))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cli::render::audit::example;

    #[test]
    fn uris() {
        let check = |path, expected| assert_eq!(uri(path), expected);
        check("/srv/my migrations/1_ä.up.sql", "file:///srv/my%20migrations/1_%C3%A4.up.sql");
        check("deploy/../migrations/1_a.up.sql", "migrations/1_a.up.sql");
        check("./migrations//1_a.up.sql", "migrations/1_a.up.sql");
        check("../../m/1_a.up.sql", "../../m/1_a.up.sql");
    }

    /// The properties that the schema of SARIF 2.1.0 requires of what is written here, and the values
    /// that it allows.
    #[test]
    fn a_log_has_what_the_schema_requires() {
        let log = serde_json::to_value(Log::new(&example())).expect("it is a document");
        let has = |value: &Value, keys: &[&str]| {
            assert!(keys.iter().all(|key| !value[*key].is_null()), "{keys:?} of {value}");
        };
        has(&log, &["version", "runs"]);
        assert_eq!(log["version"], "2.1.0");
        let run = &log["runs"][0];
        has(run, &["tool"]);
        has(&run["tool"], &["driver"]);
        has(&run["tool"]["driver"], &["name"]);
        has(&run["invocations"][0], &["executionSuccessful"]);
        let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
        for rule in rules {
            has(rule, &["id"]);
        }
        assert!(
            rules
                .iter()
                .all(|rule| rule["help"]["text"].is_string() && rule["shortDescription"]["text"].is_string())
        );
        let results = run["results"].as_array().expect("results");
        assert_eq!((rules.len(), results.len()), (3, 3));
        for result in results {
            has(result, &["message"]);
            has(&result["message"], &["text"]);
            assert!(
                ["none", "note", "warning", "error"].contains(&result["level"].as_str().unwrap_or_default())
            );
            let index = usize::try_from(result["ruleIndex"].as_u64().unwrap_or(99)).unwrap_or(99);
            assert_eq!(result["ruleId"], rules[index]["id"]);
        }
    }

    #[test]
    fn a_result_points_at_its_file() {
        let log = serde_json::to_value(Log::new(&example())).expect("it is a document");
        let results = &log["runs"][0]["results"];
        let expected = json!({
            "ruleId": "checksum_drift", "ruleIndex": 1, "level": "error",
            "message": { "text": "orders: 0010_add_products: the file is not what was applied\nstored checksum: b3fc0486\nfile checksum: 65ab01f2" },
            "locations": [{
                "physicalLocation": {
                    "artifactLocation": { "uri": "file:///srv/my%20migrations/0010_add_products.up.sql" },
                    "region": { "startLine": 1 }
                },
                "logicalLocations": [{ "fullyQualifiedName": "orders", "kind": "database" }]
            }],
            "partialFingerprints": { "nexusFinding/v1": "orders/checksum_drift/0010_add_products" }
        });
        assert_eq!(results[1], expected);
        assert!(results[2]["locations"][0]["physicalLocation"].is_null(), "a database is no file");
        assert_eq!(log["runs"][0]["invocations"][0]["executionSuccessful"], false, "one could not be read");
    }
}
