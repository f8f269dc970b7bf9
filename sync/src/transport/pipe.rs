//! A stream of frames with a task for each direction, so that one loop can serve both.

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::room::{FrameRoom, Pool};
use super::stream::{FrameReceiver, FrameSender, StreamError};
use crate::limits::{ARRIVED_BYTES_MAX, ARRIVED_FRAMES_MAX, CLOSE_TIMEOUT, FRAME_QUEUE_MAX};
use crate::message::Frame;

type Received<In> = Result<Option<In>, StreamError>;

/// A frame that waits to be taken, and the room that it takes meanwhile.
#[derive(Debug)]
struct Arrived<In> {
    received: Received<In>,
    _room: Option<OwnedSemaphorePermit>,
    shared: Option<FrameRoom>,
}

/// A frame that waits to be sent, and the room that it and those before it take until it is.
#[derive(Debug)]
struct Leaving<Out> {
    frame: Out,
    _room: FrameRoom,
}

/// Frames out and in; boxed while they wait, for a channel has room for thirty-two from the beginning, which
/// is most of what a quiet session would cost. Holds at most [`FRAME_QUEUE_MAX`] frames that go out, and
/// [`ARRIVED_FRAMES_MAX`] or [`ARRIVED_BYTES_MAX`] that have come in; both tasks end with it.
#[derive(Debug)]
pub struct FramePipe<Out, In> {
    outgoing: Option<mpsc::Sender<Box<Leaving<Out>>>>,
    incoming: mpsc::Receiver<Box<Arrived<In>>>,
    sending: Ending<Result<(), StreamError>>,
    /// What those frames take of a shared room that were taken from here.
    taken: FrameRoom,
    _receiving: Ending<()>,
}

/// A task that ends with this.
#[derive(Debug)]
struct Ending<T>(JoinHandle<T>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<Out, In> FramePipe<Out, In>
where
    Out: Frame + Send + Sync + 'static,
    In: Frame + Send + 'static,
{
    /// Takes over both halves of a stream. Needs a tokio runtime.
    #[must_use]
    pub fn new(sender: FrameSender, receiver: FrameReceiver) -> Self {
        Self::with(sender, receiver, false)
    }

    /// The same for frames that take room: each has to be taken in the time that a slow line needs for it, or
    /// nothing further is sent.
    #[must_use]
    pub fn timed(sender: FrameSender, receiver: FrameReceiver) -> Self {
        Self::with(sender, receiver, true)
    }

    fn with(sender: FrameSender, receiver: FrameReceiver, is_timed: bool) -> Self {
        let (outgoing, to_send) = mpsc::channel(FRAME_QUEUE_MAX);
        let (received, incoming) = mpsc::channel(ARRIVED_FRAMES_MAX);
        let sending = Ending(tokio::spawn(send_all(sender, to_send, is_timed)));
        let receiving = Ending(tokio::spawn(receive_all(receiver, received)));
        let taken = FrameRoom::default();
        Self { outgoing: Some(outgoing), incoming, sending, taken, _receiving: receiving }
    }

    /// Waits for the first thing of interest. May be dropped while it waits; nothing is lost.
    ///
    /// Once the other side takes nothing further this says so, and there is never room again.
    pub async fn ready(&mut self, interest: Interest) -> Ready<In> {
        let outgoing = self.outgoing.as_ref().filter(|_| interest.in_room);
        let room = async {
            match outgoing {
                // The room that was found stays: nobody else sends on this channel.
                Some(outgoing) => outgoing.reserve().await.is_ok(),
                None => std::future::pending().await,
            }
        };
        let has_room = tokio::select! {
            has_room = room => has_room,
            arrived = self.incoming.recv(), if interest.in_frames => {
                return Ready::Received(self.take(arrived));
            }
        };
        if has_room {
            return Ready::Room;
        }
        let ended = (&mut self.sending.0).await;
        self.outgoing = None;
        Ready::Gone(ended.ok().and_then(Result::err).unwrap_or(StreamError::CutOff))
    }

    /// A frame that has arrived already, if there is one.
    pub fn next_arrived(&mut self) -> Option<Received<In>> {
        let arrived = self.incoming.try_recv().ok()?;
        Some(self.take(Some(arrived)))
    }

    /// The room that the frames take that were taken from here since the last call, to be held until what
    /// they ask for is done.
    pub fn take_room(&mut self) -> FrameRoom {
        std::mem::take(&mut self.taken)
    }

    fn take(&mut self, arrived: Option<Box<Arrived<In>>>) -> Received<In> {
        let Some(arrived) = arrived else { return Ok(None) };
        self.taken.merge(arrived.shared.unwrap_or_default());
        arrived.received
    }

    /// Hands a frame to the sending task, if there is room: after [`ready`](Self::ready) has said
    /// so.
    pub fn send(&self, frame: Out) {
        self.send_with(frame, FrameRoom::default());
    }

    /// Like [`send`](Self::send), for a frame that takes `room`, or is the last of those which do: it is given
    /// back when the frame has gone out.
    pub fn send_with(&self, frame: Out, room: FrameRoom) {
        if let Some(outgoing) = &self.outgoing {
            // Without room the other side is gone, and so is the frame's use.
            let _gone = outgoing.try_send(Box::new(Leaving { frame, _room: room }));
        }
    }

    /// Sends some last frames, ends the stream, and waits a few seconds until they have arrived.
    pub async fn finish(mut self, last: impl IntoIterator<Item = Out>) {
        let ending = send_last(self.outgoing.take(), self.sending, last);
        // Who does not listen any more will notice by itself.
        let _in_time = timeout(CLOSE_TIMEOUT, ending).await;
    }

    /// Like [`finish`](Self::finish), and also waits until the other side has ended the stream:
    /// then it has not only received everything but done with it what it will. What it still says
    /// is passed over.
    pub async fn close(mut self, last: impl IntoIterator<Item = Out>) {
        let ending = send_last(self.outgoing.take(), self.sending, last);
        let incoming = &mut self.incoming;
        // The other side may be waiting for room itself, so both happen at the same time.
        let is_frame = |arrived: &Arrived<In>| matches!(arrived.received, Ok(Some(_)));
        let draining = async { while incoming.recv().await.is_some_and(|a| is_frame(&a)) {} };
        // Who does not answer any more will notice by itself.
        let _in_time = timeout(CLOSE_TIMEOUT, async { tokio::join!(ending, draining) }).await;
    }
}

/// What one would like to do with a pipe.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// To send a frame.
    pub in_room: bool,
    /// To receive one.
    pub in_frames: bool,
}

/// What a pipe is ready for.
#[derive(Debug)]
pub enum Ready<In> {
    /// A frame can be sent.
    Room,
    /// None can be sent ever again, for this reason.
    Gone(StreamError),
    /// What the other side said; `None` at the end of the stream.
    Received(Received<In>),
}

/// Hands the last frames to the sending task, and waits until it has ended the stream.
async fn send_last<Out>(
    outgoing: Option<mpsc::Sender<Box<Leaving<Out>>>>,
    mut sending: Ending<Result<(), StreamError>>,
    last: impl IntoIterator<Item = Out>,
) {
    // The other side takes nothing further.
    let Some(outgoing) = outgoing else { return };
    for frame in last {
        let leaving = Leaving { frame, _room: FrameRoom::default() };
        if outgoing.send(Box::new(leaving)).await.is_err() {
            return;
        }
    }
    drop(outgoing);
    // A task that panicked has sent what it could.
    let _sent = (&mut sending.0).await;
}

async fn send_all<Out: Frame>(
    mut sender: FrameSender,
    mut frames: mpsc::Receiver<Box<Leaving<Out>>>,
    is_timed: bool,
) -> Result<(), StreamError> {
    while let Some(leaving) = frames.recv().await {
        let Leaving { frame, _room } = *leaving;
        match is_timed {
            true => sender.send_in_time(frame).await?,
            false => sender.send(&frame).await?,
        }
    }
    sender.finish().await;
    Ok(())
}

async fn receive_all<In: Frame>(
    mut receiver: FrameReceiver,
    frames: mpsc::Sender<Box<Arrived<In>>>,
) {
    let room = Pool::new(ARRIVED_BYTES_MAX);
    loop {
        let received = receiver.next().await;
        let is_last = !matches!(received, Ok(Some(_)));
        let permit = room.take(receiver.frame_len()).await;
        let shared = if is_last { None } else { receiver.hold().await };
        let arrived = Box::new(Arrived { received, _room: permit, shared });
        if frames.send(arrived).await.is_err() || is_last {
            return;
        }
    }
}
