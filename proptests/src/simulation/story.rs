//! Stories for the simulator as data: who does what, and what goes wrong when.

use arbitrary::{Arbitrary, Unstructured};

use crate::dice::Dice;
use crate::store_story::StoreEdit;

/// The fewest and most devices at the beginning; clones may join them.
pub const DEVICES: std::ops::RangeInclusive<usize> = 2..=8;

/// The most devices, with clones.
pub(super) const DEVICES_MAX: usize = 10;

/// The longest story that a seed tells, in steps.
const STEPS_MAX: usize = 60;

/// Something that happens. `at`, `from` and `to` pick a device; where a step says `node`, the relay is
/// one more.
#[derive(Clone, Debug, Arbitrary)]
#[expect(missing_docs, reason = "the variants say it")]
pub enum SimStep {
    /// An edit, legal or not.
    Edit { at: u8, edit: StoreEdit },
    /// A new item under a name that nobody else gives, in one transaction.
    Note { at: u8 },
    /// Time passes.
    Wait { millis: u16 },
    /// A process is gone, without or with everything that was not synced.
    Crash { node: u8, is_power_loss: bool },
    /// The power goes while something is written, after so many writes and syncs.
    CrashWriting { node: u8, operations: u8 },
    /// The disk takes nothing for a while.
    FillDisk { node: u8, operations: u8, times: u8 },
    /// A process ends in good order, and stays away.
    Stop { node: u8 },
    /// A process begins again.
    Start { node: u8 },
    /// A connection breaks, in the middle of anything.
    Cut { at: u8 },
    /// Nothing gets through; a connection may survive that.
    Offline { at: u8 },
    /// It does again.
    Online { at: u8 },
    /// A line gets this slow, in bytes a millisecond and milliseconds.
    Slow { at: u8, rate: u8, delay: u8 },
    /// What is on a disk is kept.
    Backup { node: u8 },
    /// What was kept is put back, and may be noticed by its place.
    Restore { node: u8 },
    /// A copy of a device joins.
    Clone { at: u8 },
    /// A patch is written for somebody, to be handed over.
    Hand { from: u8, to: u8 },
    /// Any patch that was ever written arrives somewhere, again or late.
    Arrive { which: u8, to: u8 },
    /// The relay's clock is set by so many minutes. (Those of devices say nothing: every edit brings a
    /// time of its own.)
    SetClock { minutes: i8 },
    /// A device may only read, from its next connection on, or may write again; and it is that of another
    /// user.
    Grant { at: u8, user: u8, may_write: bool },
    /// Everything is mended, and everybody waits until everybody has everything.
    Quiet,
}

/// How files are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Copies {
    /// To another place, which is noticed when they are opened. Patches may be handed over, and the
    /// relay may be restored.
    Elsewhere,
    /// To the very same place: a backup that is written back into its file, a cloned machine. Only the
    /// relay can tell, so it must be the only way between devices, and must not forget.
    InPlace,
}

/// All that decides what happens.
#[derive(Clone, Debug)]
pub struct SimStory {
    /// Decides delays, what is torn, and new ids.
    pub seed: u64,
    /// How many devices there are at the beginning.
    pub devices: usize,
    /// How files are copied.
    pub copies: Copies,
    /// What happens.
    pub steps: Vec<SimStep>,
}

impl SimStory {
    /// The story of a seed.
    #[must_use]
    pub fn of_seed(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let devices = DEVICES.start() + dice.roll(DEVICES.end() - DEVICES.start() + 1);
        let copies = if dice.roll(2) == 0 { Copies::Elsewhere } else { Copies::InPlace };
        // Stories of a kind are told more often than stories of everything.
        let mood = dice.roll(4);
        let mut steps = Vec::new();
        // Copies are of no interest as long as everybody knows everything.
        if mood == 2 {
            let away = (0..DEVICES_MAX).filter(|_| dice.roll(2) == 0);
            let away =
                away.filter_map(|at| u8::try_from(at).ok()).map(|at| SimStep::Offline { at });
            steps.extend(away.collect::<Vec<_>>());
        }
        let count = 4 + dice.roll(STEPS_MAX - 3);
        steps.extend((0..count).map(|_| step(&mut dice, mood)));
        Self { seed, devices, copies, steps }
    }

    /// The story that any bytes tell.
    #[must_use]
    pub fn of_bytes(data: &[u8]) -> Option<Self> {
        let mut bytes = Unstructured::new(data);
        let seed = u64::arbitrary(&mut bytes).ok()?;
        let devices = bytes.int_in_range(DEVICES).ok()?;
        let copies = Copies::arbitrary(&mut bytes).ok()?;
        let mut steps = Vec::new();
        while !bytes.is_empty() && steps.len() < STEPS_MAX {
            steps.push(SimStep::arbitrary(&mut bytes).ok()?);
        }
        Some(Self { seed, devices, copies, steps })
    }
}

fn byte(dice: &mut Dice) -> u8 {
    u8::try_from(dice.roll(256)).unwrap_or_default()
}

fn step(dice: &mut Dice, mood: usize) -> SimStep {
    let (at, other, number) = (byte(dice), byte(dice), byte(dice));
    let trouble = dice.roll(100);
    let half = number.is_multiple_of(2);
    match (mood, dice.roll(100)) {
        (_, 0..18) => {
            let picks = [(); 4].map(|()| byte(dice));
            SimStep::Edit { at, edit: StoreEdit { kind: other, picks } }
        }
        (_, 18..36) => SimStep::Note { at },
        (_, 36..56) => SimStep::Wait { millis: wait(dice) },
        (_, 56..58) => SimStep::Quiet,
        // Disks.
        (0, _) => match trouble {
            0..30 => SimStep::Crash { node: at, is_power_loss: half },
            30..65 => SimStep::CrashWriting { node: at, operations: number % 32 },
            65..85 => SimStep::FillDisk { node: at, operations: number % 32, times: other % 8 + 1 },
            _ => SimStep::Stop { node: at },
        },
        // Lines.
        (1, _) => match trouble {
            0..35 => SimStep::Cut { at },
            35..50 => SimStep::Offline { at },
            50..65 => SimStep::Online { at },
            65..85 => SimStep::Slow { at, rate: number, delay: other },
            85..93 => SimStep::Crash { node: at, is_power_loss: half },
            _ => SimStep::SetClock { minutes: i8::from_le_bytes([number]) },
        },
        // Copies.
        (2, _) => match trouble {
            0..20 => SimStep::Backup { node: at },
            20..40 => SimStep::Restore { node: at },
            40..50 => SimStep::Clone { at },
            50..58 => SimStep::Offline { at },
            58..66 => SimStep::Online { at },
            66..74 => SimStep::Crash { node: at, is_power_loss: half },
            74..84 => SimStep::Hand { from: at, to: other },
            84..94 => SimStep::Arrive { which: number, to: at },
            _ => SimStep::Cut { at },
        },
        _ => anything(dice, (at, other, number), trouble),
    }
}

fn anything(dice: &mut Dice, (at, other, number): (u8, u8, u8), trouble: usize) -> SimStep {
    match trouble {
        0..8 => SimStep::Crash { node: at, is_power_loss: number.is_multiple_of(2) },
        8..16 => SimStep::CrashWriting { node: at, operations: number % 32 },
        16..22 => SimStep::FillDisk { node: at, operations: number % 32, times: other % 8 + 1 },
        22..28 => SimStep::Stop { node: at },
        28..34 => SimStep::Start { node: at },
        34..44 => SimStep::Cut { at },
        44..49 => SimStep::Offline { at },
        49..54 => SimStep::Online { at },
        54..59 => SimStep::Slow { at, rate: number, delay: other },
        59..65 => SimStep::Backup { node: at },
        65..70 => SimStep::Restore { node: at },
        70..73 => SimStep::Clone { at },
        73..81 => SimStep::Hand { from: at, to: other },
        81..91 => SimStep::Arrive { which: number, to: at },
        91..95 => SimStep::SetClock { minutes: i8::from_le_bytes([byte(dice)]) },
        _ => SimStep::Grant { at, user: other, may_write: !number.is_multiple_of(3) },
    }
}

/// Mostly shorter than a connection takes, sometimes longer than one that is idle lasts.
fn wait(dice: &mut Dice) -> u16 {
    let millis = match dice.roll(8) {
        0 => dice.roll(60_000),
        1 | 2 => dice.roll(5_000),
        3..6 => dice.roll(500),
        _ => dice.roll(20),
    };
    u16::try_from(millis).unwrap_or(u16::MAX)
}
