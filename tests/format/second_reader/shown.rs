//! The comparison of the two readers, shown answers that are wrong in one field each: it must find every one of them.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::answer::answer;
use super::golden;
use crate::common::TempDir;
use crate::common::files::anatomy::specimens;

/// The answer with one field changed, for each field and for each part of a pair.
fn wrong(right: &Value) -> Vec<(String, Value)> {
    let mut wrong = Vec::new();
    let mut with = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut answer = right.clone();
        change(&mut answer);
        assert_ne!(answer, *right, "{name}");
        wrong.push((name.to_owned(), answer));
    };
    // The moment is a question and no answer.
    for (name, value) in right.as_object().expect("an answer is an object").iter().filter(|(name, _)| *name != "now") {
        match value {
            Value::Bool(value) => with(name, &|answer| answer[name] = json!(!value)),
            Value::Number(number) => with(name, &|answer| answer[name] = json!(number.as_u64().unwrap() + 1)),
            Value::String(_) => with(name, &|answer| answer[name] = json!("another")),
            _ => with(name, &|answer| answer[name] = json!([])),
        }
    }
    if right["pairs"].as_array().is_some_and(|pairs| pairs.len() > 1) {
        for field in ["key", "value", "bucket"] {
            with(field, &|answer| answer["pairs"][0][field] = json!("another"));
        }
        with("last_index", &|answer| answer["pairs"][0]["last_index"] = json!(1u64 << 40));
        let pairs = right["pairs"].as_array().unwrap();
        let expiring = pairs.iter().position(|pair| pair["deadline"].is_u64()).expect("one has a deadline");
        with("deadline", &|answer| answer["pairs"][expiring]["deadline"] = json!(u64::MAX));
        with("no deadline", &|answer| {
            answer["pairs"][expiring].as_object_mut().unwrap().remove("deadline");
        });
        with("order", &|answer| answer["pairs"].as_array_mut().unwrap().swap(0, 1));
        with("a pair less", &|answer| drop(answer["pairs"].as_array_mut().unwrap().pop()));
        with("a pair more", &|answer| {
            let pairs = answer["pairs"].as_array_mut().unwrap();
            pairs.push(pairs[0].clone());
        });
    }
    if right["damage"].is_array() {
        with("start of the damage", &|answer| answer["damage"][0][0] = json!(1));
        with("end of the damage", &|answer| answer["damage"][0][1] = json!(1));
    }
    wrong
}

#[test]
fn the_comparison_of_the_readers_finds_every_wrong_field() {
    let python = "python3";
    if std::env::var_os("CI").is_none() && Command::new(python).arg("--version").output().is_err() {
        println!("no {python} here: nothing was compared");
        return;
    }
    let (crashed, closed) = specimens();
    let mut torn = crashed.clone();
    let end = torn.iter().rposition(|&byte| byte != 0).unwrap();
    torn[end] ^= 1;
    let mut corrupt = closed.clone();
    corrupt[64] ^= 1;
    let directory = TempDir::new();
    let (mut lines, mut expected) = (String::new(), Vec::new());
    let mut add = |file: &[u8], line: Value, name: &str| {
        let path = format!("{:03}.cask", expected.len());
        fs::write(directory.join(&path), file).unwrap();
        let mut line = line;
        (line["file"], line["story"]) = (path.into(), name.into());
        lines.push_str(&format!("{line}\n"));
        expected.push(name.to_owned());
    };
    for (what, file) in [("closed", &closed), ("torn", &torn), ("corrupt", &corrupt)] {
        let right = answer(file);
        assert!(right.get("pairs").is_some() || what == "corrupt", "{what}: {right}");
        for (name, line) in wrong(&right) {
            add(file, line, &format!("{what}, {name}"));
        }
    }
    assert!(expected.len() > 25, "{}", expected.len());
    fs::write(directory.join("verdicts.ndjson"), lines).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format/second_reader/compare.py");
    let compared = Command::new(python).arg(script).args([&golden::directory(), directory.path()]).output().unwrap();
    let said = String::from_utf8_lossy(&compared.stdout);
    assert!(!compared.status.success(), "wrong answers were taken for right: {said}");
    assert!(
        said.contains(&format!(" {} disagreements", expected.len())),
        "of {} wrong answers: {said}",
        expected.len()
    );
}
