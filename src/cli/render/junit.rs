//! An audit as JUnit XML: a test suite for each database, a test case for each finding.

use serde::Serialize;

use crate::{
    cli::render::{
        audit::{took, unread},
        json::word,
        text::{clean, rfc3339},
    },
    rpc::proto::{Audit, AuditedDatabase, Finding, Severity},
};

#[derive(Serialize)]
#[serde(rename = "testsuites")]
struct Suites {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@tests")]
    tests: usize,
    #[serde(rename = "@failures")]
    failures: usize,
    #[serde(rename = "@time")]
    time: String,
    testsuite: Vec<Suite>,
}

#[derive(Serialize)]
struct Suite {
    #[serde(rename = "@name")]
    name: String,
    #[serde(rename = "@tests")]
    tests: usize,
    #[serde(rename = "@failures")]
    failures: usize,
    #[serde(rename = "@timestamp")]
    timestamp: String,
    testcase: Vec<Case>,
}

#[derive(Serialize)]
struct Case {
    #[serde(rename = "@classname")]
    classname: String,
    #[serde(rename = "@name")]
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<Failure>,
    #[serde(rename = "system-out", skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

#[derive(Serialize)]
struct Failure {
    #[serde(rename = "@type")]
    severity: String,
    #[serde(rename = "@message")]
    message: String,
    #[serde(rename = "$text")]
    text: String,
}

/// The report. Findings as grave as `least` are failures, the others passed cases that say what was
/// seen; a database without any has one passed case.
pub fn report(audit: &Audit, least: Severity) -> anyhow::Result<String> {
    let testsuite: Vec<_> = audit.databases.iter().map(|database| suite(database, least)).collect();
    let suites = Suites {
        name: format!("nexus audit {}", clean(&audit.name)),
        tests: testsuite.iter().map(|suite| suite.tests).sum(),
        failures: testsuite.iter().map(|suite| suite.failures).sum(),
        time: format!("{:.3}", took(audit).as_secs_f64()),
        testsuite,
    };
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    let mut serializer = quick_xml::se::Serializer::new(&mut text);
    serializer.indent(' ', 2);
    suites.serialize(serializer)?;
    text.push('\n');
    Ok(text)
}

fn suite(database: &AuditedDatabase, least: Severity) -> Suite {
    let name = clean(&database.database);
    let mut testcase: Vec<_> = database.findings.iter().map(|finding| case(&name, finding, least)).collect();
    let unread = unread(database).map(|why| {
        let (severity, text) = ("unreadable".to_owned(), why.to_owned());
        Failure { severity, message: text.clone(), text }
    });
    if testcase.is_empty() || unread.is_some() {
        let (classname, name) = (name.clone(), "audit".to_owned());
        testcase.push(Case { classname, name, failure: unread, output: None });
    }
    // JUnit's times have no zone: those of Nexus are UTC.
    let timestamp = rfc3339(database.checked_at.as_ref()).unwrap_or_default();
    Suite {
        tests: testcase.len(),
        failures: testcase.iter().filter(|case| case.failure.is_some()).count(),
        timestamp: timestamp.trim_end_matches('Z').to_owned(),
        name,
        testcase,
    }
}

fn case(database: &str, finding: &Finding, least: Severity) -> Case {
    let kind = word(finding.kind().as_str_name(), "FINDING_KIND_");
    let separator = if finding.subject.is_empty() { "" } else { " " };
    let lines = finding.evidence.iter().chain([&finding.remedy]).map(|line| clean(line));
    let lines: Vec<_> = [clean(&finding.message)].into_iter().chain(lines).collect();
    let text = lines.join("\n");
    let is_failure = finding.severity() >= least;
    let (failure, output) = if is_failure {
        let severity = word(finding.severity().as_str_name(), "SEVERITY_");
        (Some(Failure { severity, message: clean(&finding.message), text }), None)
    } else {
        (None, Some(text))
    };
    let name = format!("{kind}{separator}{}", clean(&finding.subject));
    Case { classname: database.to_owned(), name, failure, output }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::audit::example;

    #[test]
    fn a_report() {
        let expected = "\
<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<testsuites name=\"nexus audit nightly\" tests=\"4\" failures=\"2\" time=\"0.120\">
  <testsuite name=\"billing\" tests=\"1\" failures=\"0\" timestamp=\"2025-10-30T10:15:30.150\">
    <testcase classname=\"billing\" name=\"audit\"/>
  </testsuite>
  <testsuite name=\"orders\" tests=\"2\" failures=\"1\" timestamp=\"2025-10-30T10:15:30.200\">
    <testcase classname=\"orders\" name=\"no_down 0009_add_stock\">
      <system-out>has no down migration
Write the down file</system-out>
    </testcase>
    <testcase classname=\"orders\" name=\"checksum_drift 0010_add_products\">
      <failure type=\"critical\" message=\"the file is not what was applied\">the file is not what was applied
stored checksum: b3fc0486
file checksum: 65ab01f2
Restore the file as it was applied</failure>
    </testcase>
  </testsuite>
  <testsuite name=\"users\" tests=\"1\" failures=\"1\" timestamp=\"2025-10-30T10:15:30.210\">
    <testcase classname=\"users\" name=\"database_unreachable\">
      <failure type=\"critical\" message=\"the database does not answer\">the database does not answer
See that the server runs</failure>
    </testcase>
  </testsuite>
</testsuites>
";
        assert_eq!(report(&example(), Severity::Warning).expect("it is XML"), expected);
        let mut hostile = example();
        hostile.databases[1].findings[1].message = "a \"b\" <c> & \u{1b}]]>".into();
        let escaped = report(&hostile, Severity::Warning).expect("it is XML");
        assert!(escaped.contains("message=\"a &quot;b&quot; &lt;c&gt; &amp; \u{fffd}]]&gt;\""), "{escaped}");
        assert!(escaped.contains(">a \"b\" &lt;c&gt; &amp; \u{fffd}]]&gt;\n"), "{escaped}");
        let strict = report(&example(), Severity::Info).expect("it is XML");
        assert!(strict.contains("tests=\"4\" failures=\"3\""), "{strict}");
    }
}
