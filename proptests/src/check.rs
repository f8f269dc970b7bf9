//! Runs a property on random inputs. On failure the seed is printed with the smallest input found;
//! `PROPTEST_RNG_SEED` runs that seed again, `PROPTEST_CASES` sets how many inputs are tried.

use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::io::Write;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// Panics if `property` panics for some input.
pub fn check<S>(cases: u32, inputs: &S, property: impl Fn(S::Value))
where
    S: Strategy,
    S::Value: Debug,
{
    let mut config = Config { failure_persistence: None, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    let seed = match config.rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => RandomState::new().hash_one(0),
    };
    config.rng_seed = RngSeed::Fixed(seed);
    let result = TestRunner::new(config).run(inputs, |input| {
        property(input);
        Ok(())
    });
    let failure = result.err().map(|failure| failure.to_string());
    assert!(failure.is_none(), "PROPTEST_RNG_SEED={seed}\n{}", failure.unwrap_or_default());
}

/// Prints what was checked, so that a test which silently checks less can be noticed.
pub fn report(what: &str) {
    writeln!(std::io::stderr(), "{what}").expect("stderr can be written");
}
