//! A bounded channel for the content of a message on its way into HTTP/2: bytes go in on one side, hyper
//! takes frames from the other.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use shared::lock::lock;

/// Bytes that wait for the receiver at most.
pub(super) const MAX_BUFFERED: usize = 64 * 1024;

/// A message that ends before its end: the stream is reset.
#[derive(Debug, thiserror::Error)]
#[error("the message is cut short")]
pub struct BodyCut(#[source] h2::Error);

/// The receiver takes no more: the stream was reset, or its message is over for the other side.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ReceiverGone;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum End {
    #[default]
    Open,
    Complete,
    Cut,
}

#[derive(Debug)]
struct State {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    end: End,
    /// What a reset says if the message is cut.
    reason: h2::Reason,
    is_receiver_gone: bool,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

impl State {
    /// Nothing waits for the receiver.
    fn is_drained(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }
}

/// Takes content for a stream. Dropping it before [`FrameSender::finish`] cuts the message.
#[derive(Debug)]
pub(super) struct FrameSender(Arc<Mutex<State>>);

/// The content of a message, as hyper takes it.
#[derive(Debug)]
pub struct FrameBody(Arc<Mutex<State>>);

/// Tells how far a message has come.
#[derive(Clone, Debug)]
pub(super) struct FrameProbe(Arc<Mutex<State>>);

/// A message without content so far, whose stream is reset for `reason` if it is cut.
pub(super) fn channel(reason: h2::Reason) -> (FrameSender, FrameBody) {
    let state = Arc::new(Mutex::new(State {
        data: BytesMut::new(),
        trailers: None,
        end: End::Open,
        reason,
        is_receiver_gone: false,
        sender: None,
        receiver: None,
    }));
    (FrameSender(Arc::clone(&state)), FrameBody(state))
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Keeps the waker of `cx`, without a clone where it is there already.
fn register(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

impl FrameSender {
    /// Waits until there is room. Returns the bytes that may be pushed.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<usize, ReceiverGone>> {
        let mut state = lock(&self.0);
        if state.is_receiver_gone {
            return Poll::Ready(Err(ReceiverGone));
        }
        match MAX_BUFFERED.saturating_sub(state.data.len()) {
            0 => {
                register(&mut state.sender, cx);
                Poll::Pending
            }
            room => Poll::Ready(Ok(room)),
        }
    }

    /// Adds content.
    pub(super) fn push(&self, content: &[u8]) {
        if content.is_empty() {
            return;
        }
        let receiver = {
            let mut state = lock(&self.0);
            state.data.extend_from_slice(content);
            state.receiver.take()
        };
        wake(receiver);
    }

    /// The message is complete, with trailers if there are any.
    pub(super) fn finish(&self, trailers: HeaderMap) {
        let receiver = {
            let mut state = lock(&self.0);
            if state.end == End::Open {
                state.end = End::Complete;
                state.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
            }
            state.receiver.take()
        };
        wake(receiver);
    }

    /// Waits until the receiver has taken everything, or takes no more.
    pub(super) fn poll_drained(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.is_receiver_gone || state.is_drained() {
            return Poll::Ready(());
        }
        register(&mut state.sender, cx);
        Poll::Pending
    }

    /// Waits until the receiver is done with all of a complete message, or takes no more.
    pub(super) fn poll_delivered(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0);
        if state.is_receiver_gone {
            return Poll::Ready(());
        }
        register(&mut state.sender, cx);
        Poll::Pending
    }

    /// A view of this message that outlives both sides.
    pub(super) fn probe(&self) -> FrameProbe {
        FrameProbe(Arc::clone(&self.0))
    }
}

impl Drop for FrameSender {
    fn drop(&mut self) {
        let receiver = {
            let mut state = lock(&self.0);
            if state.end == End::Open {
                state.end = End::Cut;
            }
            state.receiver.take()
        };
        wake(receiver);
    }
}

impl FrameProbe {
    /// Whether all of the message was handed over, taken or not.
    pub(super) fn is_complete(&self) -> bool {
        lock(&self.0).end == End::Complete
    }
}

impl Body for FrameBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let (frame, sender) = {
            let mut state = lock(&self.0);
            let frame = match state.end {
                _ if !state.data.is_empty() => Frame::data(state.data.split().freeze()),
                End::Complete => match state.trailers.take() {
                    Some(trailers) => Frame::trailers(trailers),
                    None => return Poll::Ready(None),
                },
                End::Cut => return Poll::Ready(Some(Err(BodyCut(state.reason.into())))),
                End::Open => {
                    register(&mut state.receiver, cx);
                    return Poll::Pending;
                }
            };
            (frame, state.sender.take())
        };
        wake(sender);
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.0);
        state.end == End::Complete && state.is_drained()
    }

    /// Exact only where there is nothing: a length that is known by chance would become a `Content-Length`
    /// now and then.
    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

impl Drop for FrameBody {
    fn drop(&mut self) {
        let sender = {
            let mut state = lock(&self.0);
            state.is_receiver_gone = true;
            state.data = BytesMut::new();
            state.sender.take()
        };
        wake(sender);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use http::{HeaderMap, HeaderValue};
    use http_body::Body as _;

    use h2::Reason;

    use super::{FrameBody, MAX_BUFFERED, ReceiverGone};

    fn channel() -> (super::FrameSender, FrameBody) {
        super::channel(Reason::CANCEL)
    }

    fn next(body: &mut FrameBody) -> Poll<Option<Result<Vec<u8>, Option<Reason>>>> {
        let mut cx = Context::from_waker(Waker::noop());
        let polled = Pin::new(body).poll_frame(&mut cx).map_ok(|frame| match frame.into_data() {
            Ok(data) => data.to_vec(),
            Err(frame) => format!("{:?}", frame.into_trailers().unwrap()).into_bytes(),
        });
        polled.map_err(|cut| cut.0.reason())
    }

    #[test]
    fn content_is_bounded_until_the_receiver_takes_it() {
        let cx = Context::from_waker(Waker::noop());
        let (sender, mut body) = channel();
        assert_eq!(sender.poll_room(&cx), Poll::Ready(Ok(MAX_BUFFERED)));
        sender.push(b"abc");
        assert_eq!(sender.poll_room(&cx), Poll::Ready(Ok(MAX_BUFFERED - 3)));
        assert_eq!(sender.poll_drained(&cx), Poll::Pending);
        sender.push(&vec![b'x'; MAX_BUFFERED - 3]);
        assert_eq!(sender.poll_room(&cx), Poll::Pending);
        let Poll::Ready(Some(Ok(data))) = next(&mut body) else { panic!("no data") };
        assert_eq!(data.len(), MAX_BUFFERED);
        assert_eq!(sender.poll_drained(&cx), Poll::Ready(()));
        assert_eq!(sender.poll_room(&cx), Poll::Ready(Ok(MAX_BUFFERED)));
        drop(body);
        assert_eq!(sender.poll_room(&cx), Poll::Ready(Err(ReceiverGone)));
        assert_eq!(sender.poll_drained(&cx), Poll::Ready(()));
    }

    #[test]
    fn only_a_finished_message_has_an_end() {
        let (sender, mut body) = channel();
        let probe = sender.probe();
        assert_eq!(next(&mut body), Poll::Pending);
        sender.push(b"abc");
        drop(sender);
        assert!(!probe.is_complete() && !body.is_end_stream());
        assert_eq!(next(&mut body), Poll::Ready(Some(Ok(b"abc".to_vec()))));
        assert_eq!(next(&mut body), Poll::Ready(Some(Err(Some(Reason::CANCEL)))));

        let (sender, mut body) = channel();
        let probe = sender.probe();
        sender.push(b"abc");
        sender.finish(HeaderMap::new());
        drop(sender);
        assert!(probe.is_complete() && !body.is_end_stream());
        assert_eq!(next(&mut body), Poll::Ready(Some(Ok(b"abc".to_vec()))));
        assert!(body.is_end_stream());
        assert_eq!(next(&mut body), Poll::Ready(None));
    }

    #[test]
    fn trailers_come_last() {
        let (sender, mut body) = channel();
        sender.push(b"abc");
        sender.finish(HeaderMap::from_iter([(http::header::ETAG, HeaderValue::from_static("x"))]));
        assert_eq!(next(&mut body), Poll::Ready(Some(Ok(b"abc".to_vec()))));
        assert!(!body.is_end_stream());
        assert_eq!(next(&mut body), Poll::Ready(Some(Ok(b"{\"etag\": \"x\"}".to_vec()))));
        assert!(body.is_end_stream());
    }

    #[test]
    fn only_an_empty_message_has_a_known_length() {
        let (sender, body) = channel();
        assert_eq!(body.size_hint().exact(), None);
        sender.finish(HeaderMap::new());
        assert_eq!(body.size_hint().exact(), Some(0));
        assert!(body.is_end_stream());
    }
}
