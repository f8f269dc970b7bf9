use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn read(json: &str) -> Result<Trace> {
    parse("a trace", json.as_bytes())
}

fn read_concurrent(txns: &str, end: &str) -> ConcurrentTrace {
    let json =
        format!(r#"{{"kind":"concurrent","endContent":"{end}","numAgents":2,"txns":[{txns}]}}"#);
    match read(&json).unwrap() {
        Trace::Concurrent(trace) => trace,
        Trace::Sequential(_) => unreachable!("it says that it is concurrent"),
    }
}

#[test]
fn a_sequential_trace_is_read_in_all_units() {
    let json = r#"{"startContent":"a\ud83d\ude00c","endContent":"a\u00e9!c","txns":[
        {"time":"now","patches":[[1,1,"\u00e9"]]}, {"patches":[]}, {"patches":[[2,0,"!"]]}]}"#;
    let Trace::Sequential(trace) = read(json).unwrap() else { unreachable!("no kind") };
    assert_eq!(trace.edits.len(), 3, "the start, and what is not empty");
    let changes: Vec<&[Splice]> = trace.edits.iter().collect();
    assert_eq!(changes[1][0].deleted, Offset::new(1, 2, 4));
    assert_eq!(changes[2][0].at, Offset::new(2, 2, 3));
    assert_eq!(trace.end, "a\u{e9}!c");
    assert_eq!(trace.prefix(2).end, "a\u{e9}c");
    assert_eq!(trace.prefix(9).end, trace.end);
}

#[test]
fn gzip_makes_no_difference() {
    let json = r#"{"startContent":"","endContent":"x","txns":[{"patches":[[0,0,"x"]]}]}"#;
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(json.as_bytes()).unwrap();
    let packed = packer.finish().unwrap();
    assert!(matches!(parse("packed", &packed), Ok(Trace::Sequential(_))));
    assert!(parse("cut", &packed[..packed.len() - 9]).is_err());
}

#[test]
fn what_is_no_trace_is_an_error() {
    for wrong in [
        "",
        "[]",
        r#"{"startContent":"","endContent":"y","txns":[{"patches":[[0,0,"x"]]}]}"#,
        r#"{"startContent":"","endContent":"x","txns":[{"patches":[[7,0,"x"]]}]}"#,
        r#"{"kind":"musical","endContent":"","txns":[]}"#,
        r#"{"kind":"concurrent","endContent":"","numAgents":1,"txns":[{"agent":1,"patches":[]}]}"#,
        r#"{"kind":"concurrent","endContent":"","numAgents":1,"txns":[{"parents":[0],"patches":[]}]}"#,
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn replicas_receive_exactly_what_an_edit_builds_on() {
    let txns = r#"
        {"parents":[],"agent":0,"patches":[[0,0,"a"]]},
        {"parents":[0],"agent":0,"patches":[[1,0,"b"]]},
        {"parents":[0],"agent":1,"patches":[[1,0,"c"]]},
        {"parents":[1,2],"agent":1,"patches":[[0,1,""]]}"#;
    let trace = read_concurrent(txns, "bc");
    assert_eq!(trace.replicas, 2);
    let actions: Vec<String> = trace.steps.iter().map(describe).collect();
    let expected = [
        "0 sends 1",
        "0 sends 1",
        "1 receives [0]",
        "1 sends 1",
        "1 receives [1]",
        "1 sends 1",
        "0 receives [2, 3]",
    ];
    assert_eq!(actions, expected);
}

#[test]
fn an_author_in_two_places_gets_two_replicas() {
    let txns = r#"
        {"parents":[],"agent":0,"patches":[[0,0,"a"]]},
        {"parents":[],"agent":0,"patches":[[0,0,"b"]]},
        {"parents":[0,1],"agent":0,"patches":[[1,0,"c"]]}"#;
    let trace = read_concurrent(txns, "acb");
    assert_eq!(trace.replicas, 2);
    let sends = trace.steps.iter().filter(|step| matches!(step, Step::Send { .. })).count();
    assert_eq!(sends, 3, "one from each replica, and the last edit");
}

#[test]
fn units_of_a_concurrent_trace_are_counted_where_the_edit_was_made() {
    let txns = r#"
        {"parents":[],"agent":0,"patches":[[0,0,"\ud83d\ude00"]]},
        {"parents":[0],"agent":1,"patches":[[1,0,"\u00e9"],[2,0,"!"]]}"#;
    let trace = read_concurrent(txns, "\u{1f600}\u{e9}!");
    let edit = trace.steps.iter().find_map(|step| match step {
        Step::Send { replica: 1, changes } => changes.iter().next(),
        _ => None,
    });
    assert_eq!(edit.unwrap()[1].at, Offset::new(2, 3, 6));
}

fn describe(step: &Step) -> String {
    match step {
        Step::Send { replica, changes } => format!("{replica} sends {}", changes.len()),
        Step::Receive { replica, messages } => format!("{replica} receives {messages:?}"),
    }
}
