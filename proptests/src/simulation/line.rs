//! A stream in both directions between a device and the relay: in order and without gaps, as QUIC gives
//! it, but slow, and cut off at any byte.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use sds_sync::{Frame, FrameBuffer, FrameError};

use crate::dice::Dice;

/// How fast a line is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Speed {
    /// In bytes a millisecond.
    pub(super) rate: u32,
    /// How long the first byte takes.
    pub(super) delay: Duration,
}

impl Speed {
    pub(super) const FAST: Self = Self { rate: 1_000, delay: Duration::from_millis(10) };
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The sender has said all it had to say.
    Finished,
    /// The connection is lost.
    Lost,
}

/// Something that is on its way.
#[derive(Debug)]
enum Parcel {
    Bytes(Bytes),
    End(End),
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    on_the_way: VecDeque<(Duration, Parcel)>,
    /// Nothing more is taken.
    is_closed: bool,
    arrived: FrameBuffer,
    ended: Option<End>,
}

impl Pipe {
    pub(super) fn new(frame_max: usize) -> Self {
        Self {
            on_the_way: VecDeque::new(),
            is_closed: false,
            arrived: FrameBuffer::new(frame_max),
            ended: None,
        }
    }

    /// Sends a frame, in parcels of any size.
    pub(super) fn send(
        &mut self,
        frame: &impl Frame,
        now: Duration,
        speed: Speed,
        dice: &mut Dice,
    ) {
        let mut bytes = frame.encode();
        while !bytes.is_empty() && !self.is_closed {
            let size = 1 + dice.roll(bytes.len().min(1_200));
            let parcel = bytes.split_to(size);
            let takes = Duration::from_millis(size as u64 / u64::from(speed.rate.max(1)));
            let jitter = Duration::from_millis(dice.roll(10) as u64);
            let start = now.max(self.last_arrival().saturating_sub(speed.delay));
            self.put(start + speed.delay + takes + jitter, Parcel::Bytes(parcel));
        }
    }

    /// Says that there is no more, behind all that was sent.
    pub(super) fn finish(&mut self, now: Duration, speed: Speed) {
        if !self.is_closed {
            self.put(now + speed.delay, Parcel::End(End::Finished));
            self.is_closed = true;
        }
    }

    /// The connection is lost: of what is on its way some may still arrive, then the receiver learns it.
    pub(super) fn cut(&mut self, now: Duration, dice: &mut Dice) {
        self.on_the_way.truncate(dice.roll(self.on_the_way.len() + 1));
        let is_told = |(_, parcel): &(Duration, Parcel)| matches!(parcel, Parcel::End(_));
        if self.ended.is_none() && !self.on_the_way.back().is_some_and(is_told) {
            if dice.roll(2) == 0
                && let Some((_, Parcel::Bytes(bytes))) = self.on_the_way.back_mut()
            {
                bytes.truncate(dice.roll(bytes.len()));
            }
            let at = now + Duration::from_millis(dice.roll(1_000) as u64);
            self.put(at, Parcel::End(End::Lost));
        }
        self.is_closed = true;
    }

    /// When something arrives next.
    pub(super) fn next_arrival(&self) -> Option<Duration> {
        self.on_the_way.front().map(|(at, _)| *at)
    }

    /// Lets arrive what is due.
    pub(super) fn arrive(&mut self, now: Duration) {
        while self.next_arrival().is_some_and(|at| at <= now) {
            match self.on_the_way.pop_front() {
                Some((_, Parcel::Bytes(bytes))) => self.arrived.extend(&bytes),
                Some((_, Parcel::End(end))) => self.ended = Some(end),
                None => return,
            }
        }
    }

    /// A frame that has arrived.
    pub(super) fn next_frame<F: Frame>(&mut self) -> Result<Option<F>, FrameError> {
        self.arrived.next_frame()
    }

    /// How the direction has ended, once all frames before are taken out.
    pub(super) const fn ended(&self) -> Option<End> {
        self.ended
    }

    /// How many bytes are on their way.
    pub(super) fn load(&self) -> usize {
        let size = |(_, parcel): &(Duration, Parcel)| match parcel {
            Parcel::Bytes(bytes) => bytes.len(),
            Parcel::End(_) => 0,
        };
        self.on_the_way.iter().map(size).sum()
    }

    pub(super) const fn set_frame_max(&mut self, max: usize) {
        self.arrived.set_max(max);
    }

    fn last_arrival(&self) -> Duration {
        self.on_the_way.back().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// Nothing overtakes anything.
    fn put(&mut self, at: Duration, parcel: Parcel) {
        self.on_the_way.push_back((at.max(self.last_arrival()), parcel));
    }
}
