//! Concurrent traces: who edits, who sends and who receives, step by step.
//!
//! Every author has a replica. (An author whose edits do not follow one another, as in some
//! recorded histories, gets several.) Before an edit, its replica receives exactly the edits on
//! which the edit builds. A message holds all edits that a replica made between two points at which
//! anyone needs them: the fewest messages that can carry the trace.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use ropey::Rope;

use super::{Edits, File, Patch, Splice, keep, measure_splice};
use crate::engines::Text;
use crate::engines::diamond::Diamond;

/// Something that a replica does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Makes changes and puts them into a message. Messages are numbered as they are sent.
    Send { replica: usize, changes: Edits },
    /// Takes in messages, by number.
    Receive { replica: usize, messages: Vec<usize> },
}

/// The edits of several authors. At the end replica 0 has everything.
#[derive(Clone, Debug)]
pub(crate) struct ConcurrentTrace {
    pub(crate) name: String,
    pub(crate) replicas: usize,
    pub(crate) steps: Vec<Step>,
    pub(crate) end: String,
}

/// Counts of edits known, by replica.
type Known = Vec<usize>;

/// One transaction of the file, and where it is made.
struct Placed {
    replica: usize,
    /// The edits that it builds on.
    needs: Known,
}

struct Sent {
    replica: usize,
    /// Counts of that replica's edits before and after the message.
    from: usize,
    to: usize,
}

pub(super) fn concurrent(name: &str, file: File) -> Result<ConcurrentTrace> {
    ensure!(file.start_content.is_empty(), "a concurrent trace that does not start empty");
    let mut all = file.txns.iter().flat_map(|txn| &txn.patches);
    let is_ascii = all.all(|patch| patch.2.is_ascii());
    let placed = place(&file)?;
    let replicas = placed.iter().map(|txn| txn.replica + 1).max().unwrap_or(1);
    let cuts = cuts(&placed, replicas);
    let patches = file.txns.into_iter().map(|txn| txn.patches);
    let mut steps = steps(placed, patches, &cuts);
    if !is_ascii {
        count_units(&mut steps, replicas)?;
    }
    Ok(ConcurrentTrace { name: name.to_owned(), replicas, steps, end: file.end_content })
}

/// Finds a replica for every transaction: one of its author whose edits it all builds on.
fn place(file: &File) -> Result<Vec<Placed>> {
    let mut of_agent: Vec<Vec<usize>> = vec![Vec::new(); file.num_agents];
    let mut made: Known = Vec::new();
    let mut placed: Vec<Placed> = Vec::with_capacity(file.txns.len());
    for (at, txn) in file.txns.iter().enumerate() {
        ensure!(txn.agent < of_agent.len(), "transaction {at} has an unknown agent");
        let mut needs = vec![0; made.len()];
        for parent in &txn.parents {
            ensure!(*parent < at, "transaction {at} builds on a later one");
            let parent = &placed[*parent];
            let with_itself = parent.needs[parent.replica] + 1;
            for (known, other) in needs.iter_mut().zip(&parent.needs) {
                *known = (*known).max(*other);
            }
            needs[parent.replica] = needs[parent.replica].max(with_itself);
        }
        let free = |replica: &&usize| needs[**replica] == made[**replica];
        let replica = of_agent[txn.agent].iter().find(free).copied().unwrap_or_else(|| {
            made.push(0);
            needs.push(0);
            of_agent[txn.agent].push(made.len() - 1);
            made.len() - 1
        });
        made[replica] += 1;
        placed.push(Placed { replica, needs });
    }
    Ok(placed)
}

/// The counts of edits at which each replica has to send.
fn cuts(placed: &[Placed], replicas: usize) -> Vec<BTreeSet<usize>> {
    let mut cuts = vec![BTreeSet::new(); replicas];
    let mut known = vec![vec![0; replicas]; replicas];
    let mut made = vec![0; replicas];
    for Placed { replica, needs } in placed {
        for (other, need) in needs.iter().enumerate() {
            if other != *replica && known[*replica][other] < *need {
                known[*replica][other] = *need;
                cuts[other].insert(*need);
                // What was edited before a reception leaves before it.
                cuts[*replica].insert(made[*replica]);
            }
        }
        made[*replica] += 1;
    }
    for (cuts, made) in cuts.iter_mut().zip(made) {
        cuts.insert(made);
    }
    cuts
}

fn steps(
    placed: Vec<Placed>,
    patches: impl Iterator<Item = Vec<Patch>>,
    cuts: &[BTreeSet<usize>],
) -> Vec<Step> {
    let replicas = cuts.len();
    let mut steps = Vec::with_capacity(placed.len() * 2);
    let mut sent: Vec<Sent> = Vec::new();
    let mut known = vec![vec![0; replicas]; replicas];
    let mut made = vec![0; replicas];
    let mut last_cut = vec![0; replicas];
    let mut changes = vec![Edits::default(); replicas];
    for (Placed { replica, mut needs }, patches) in placed.into_iter().zip(patches) {
        needs.resize(replicas, 0);
        receive(&mut steps, &sent, replica, &mut known[replica], &needs);
        let ascii = |Patch(at, deleted, text)| Splice::ascii(at, deleted, keep(text));
        changes[replica].push(patches.into_iter().map(ascii));
        made[replica] += 1;
        known[replica][replica] = made[replica];
        if cuts[replica].contains(&made[replica]) {
            let changes = std::mem::take(&mut changes[replica]);
            steps.push(Step::Send { replica, changes });
            sent.push(Sent { replica, from: last_cut[replica], to: made[replica] });
            last_cut[replica] = made[replica];
        }
    }
    if replicas > 0 {
        receive(&mut steps, &sent, 0, &mut known[0], &made);
    }
    steps
}

fn receive(
    steps: &mut Vec<Step>,
    sent: &[Sent],
    replica: usize,
    known: &mut Known,
    needs: &[usize],
) {
    let is_new = |message: &Sent| {
        message.replica != replica
            && known[message.replica] <= message.from
            && message.to <= needs[message.replica]
    };
    if known.iter().zip(needs).all(|(known, need)| need <= known) {
        return;
    }
    let messages = (0..sent.len()).filter(|number| is_new(&sent[*number])).collect();
    steps.push(Step::Receive { replica, messages });
    for (known, need) in known.iter_mut().zip(needs) {
        *known = (*known).max(*need);
    }
}

/// Replays the trace to find out what its code points are in other units.
fn count_units(steps: &mut [Step], count: usize) -> Result<()> {
    let mut replicas = vec![Diamond::new()];
    for number in 1..count as u64 {
        let other = replicas[0].fork(number + 1)?;
        replicas.push(other);
    }
    let mut sent = Vec::new();
    for step in steps {
        match step {
            Step::Send { replica, changes } => {
                let mut rope = Rope::from(replicas[*replica].text()?);
                for splice in &mut changes.splices {
                    let Splice { at, deleted, inserted } = *splice;
                    *splice = measure_splice(&rope, at.chars(), deleted.chars(), inserted)?;
                    splice.apply(&mut rope);
                }
                sent.push(replicas[*replica].share(changes.iter())?);
            }
            Step::Receive { replica, messages } => {
                let messages: Vec<_> = messages.iter().map(|number| &sent[*number]).collect();
                replicas[*replica].receive(&messages)?;
            }
        }
    }
    Ok(())
}
