//! Every input that the fuzzer found worth keeping still passes. See `fuzz/README.md`.

use std::path::{Path, PathBuf};

use sds_proptests::check::report;
use sds_proptests::fuzz;
use sds_proptests::simulation::{SimStory, run_story};

#[test]
fn stories_of_the_corpus_converge() {
    for (file, bytes) in corpus("convergence") {
        if let Err(panic) = std::panic::catch_unwind(|| fuzz::convergence(&bytes)) {
            report(&format!("{}: {:#?}", file.display(), fuzz::story(&bytes)));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn bytes_of_the_corpus_are_refused_or_taken_in() {
    for (file, bytes) in corpus("decoding") {
        if let Err(panic) = std::panic::catch_unwind(|| fuzz::decoding(&bytes)) {
            report(&format!("{}", file.display()));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn stories_of_a_store_in_the_corpus_keep_its_rules() {
    for (file, bytes) in corpus("store") {
        if let Err(panic) = std::panic::catch_unwind(|| fuzz::store(&bytes)) {
            report(&format!("{}: {:#?}", file.display(), fuzz::store_story(&bytes)));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn simulations_of_the_corpus_come_to_rest() {
    for (file, bytes) in corpus("simulation") {
        let story = SimStory::of_bytes(&bytes).unwrap();
        if let Err((trace, failure)) = run_story(&story) {
            panic!("{}: {failure}\n{story:#?}\n{}", file.display(), trace.join("\n"));
        }
    }
}

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut files: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus is not where it was");
    files.into_iter().map(|file| (file.clone(), std::fs::read(file).unwrap())).collect()
}
