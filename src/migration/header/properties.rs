//! Headers of any form: what is written is what is read, whatever stands around it.

use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;

use super::{Allowed, Header};

/// One line of a header, as somebody means it.
#[derive(Debug, Clone)]
enum Said {
    NoTransaction,
    LockTimeout(u32),
    StatementTimeout(u32),
    Allow(u8, String),
    Description(String),
    Impact(String),
    RollbackImpact(String),
    DataLoss(String),
    Prose(String),
}

impl Said {
    /// What may be said once; a rule is silenced once.
    fn kind(&self) -> (std::mem::Discriminant<Self>, u8) {
        (std::mem::discriminant(self), if let Self::Allow(rule, _) = self { *rule } else { 0 })
    }

    fn written(&self) -> String {
        match self {
            Self::NoTransaction => "nexus: no-transaction".to_owned(),
            Self::LockTimeout(millis) => format!("nexus: lock-timeout {millis}ms"),
            Self::StatementTimeout(seconds) => format!("NEXUS:statement-timeout\t{seconds}s"),
            Self::Allow(rule, reason) => format!("nexus: allow rule-{rule} {reason}"),
            Self::Description(text) => format!("Description: {text}"),
            Self::Impact(text) => format!("IMPACT:{text}"),
            Self::RollbackImpact(text) => format!("Rollback Impact : {text}"),
            Self::DataLoss(text) => format!("data loss: {text}"),
            Self::Prose(text) => text.clone(),
        }
    }

    fn put(&self, header: &mut Header) {
        match self {
            Self::NoTransaction => header.no_transaction = true,
            Self::LockTimeout(millis) => {
                header.lock_timeout = Some(Duration::from_millis(u64::from(*millis)));
            }
            Self::StatementTimeout(seconds) => {
                header.statement_timeout = Some(Duration::from_secs(u64::from(*seconds)));
            }
            Self::Allow(rule, reason) => {
                header.allowed.push(Allowed { rule: format!("rule-{rule}"), reason: reason.clone() });
            }
            Self::Description(text) => header.description.clone_from(text),
            Self::Impact(text) => header.impact.clone_from(text),
            Self::RollbackImpact(text) => header.rollback_impact.clone_from(text),
            Self::DataLoss(text) => header.data_loss.clone_from(text),
            Self::Prose(_) => {}
        }
    }
}

fn said() -> impl Strategy<Value = Said> {
    let text = || "[a-zé][a-zé:;' ]{0,8}[a-z.]";
    prop_oneof![
        Just(Said::NoTransaction),
        (0..=i32::MAX.cast_unsigned()).prop_map(Said::LockTimeout),
        (0_u32..2_000_000).prop_map(Said::StatementTimeout),
        (0_u8..4, text()).prop_map(|(rule, reason)| Said::Allow(rule, reason)),
        text().prop_map(Said::Description),
        text().prop_map(Said::Impact),
        text().prop_map(Said::RollbackImpact),
        text().prop_map(Said::DataLoss),
        "[a-m =;'\"$]{0,10}".prop_map(Said::Prose),
    ]
}

/// How one line stands in the file.
fn framed(said: &Said, form: u8, end: &str) -> String {
    let text = said.written();
    match form % 5 {
        0 => format!("-- {text}{end}"),
        1 => format!("  --{text} {end}"),
        2 => format!("/* {text} */{end}"),
        3 => format!("{end}/*{end} * é{end} * {text}{end} */ "),
        _ => format!("/* a /* nested */{end}{text} */{end}"),
    }
}

proptest! {
    #[test]
    fn what_is_said_is_read(
        lines in prop::collection::vec((said(), any::<u8>()), 0..8),
        is_crlf in any::<bool>(),
        has_bom in any::<bool>(),
        below in "(select|'| |-- nexus: nonsense\n|/\\*|\\PC){0,20}",
    ) {
        let end = if is_crlf { "\r\n" } else { "\n" };
        let (mut kinds, mut expected) = (HashSet::new(), Header::default());
        let mut text = if has_bom { "\u{feff}".to_owned() } else { String::new() };
        for (said, form) in &lines {
            if !matches!(said, Said::Prose(_)) && !kinds.insert(said.kind()) {
                continue;
            }
            said.put(&mut expected);
            text += &framed(said, *form, end);
        }
        prop_assert_eq!(Header::parse(&text), Ok(expected.clone()), "{}", text);
        let whole = format!("{text}{end}select 1;{end}{below}");
        prop_assert_eq!(Header::parse(&whole), Ok(expected), "what stands below is none: {}", whole);
    }

    #[test]
    fn any_text_is_read_or_refused_at_a_place(
        text in "(-- |/\\*|\\*/|nexus:|nexus |allow |lock-timeout |no-transaction|\n|\r|\u{feff}|[0-9]{1,20}|ms|d|\\PC){0,16}"
    ) {
        if let Err(error) = Header::parse(&text) {
            let line = text.trim_start_matches('\u{feff}').lines().nth(error.line as usize - 1);
            let line = line.expect("the line is there");
            prop_assert!(error.column as usize <= line.chars().count() + 1, "{:?} {:?}", error, text);
        }
    }
}
