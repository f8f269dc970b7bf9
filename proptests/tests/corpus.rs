//! Every input that the fuzzer found worth keeping still passes. See `fuzz/README.md`.

use std::path::Path;

use sds_proptests::check::report;
use sds_proptests::fuzz;

#[test]
fn stories_of_the_corpus_converge() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/convergence");
    let mut files: Vec<_> =
        std::fs::read_dir(corpus).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the corpus is not where it was");
    for file in &files {
        let bytes = std::fs::read(file).unwrap();
        if let Err(panic) = std::panic::catch_unwind(|| fuzz::convergence(&bytes)) {
            report(&format!("{}: {:#?}", file.display(), fuzz::story(&bytes)));
            std::panic::resume_unwind(panic);
        }
    }
}
