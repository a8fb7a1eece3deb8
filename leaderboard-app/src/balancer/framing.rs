//! A gate before the HTTP parser: only requests whose end is beyond doubt pass.
//!
//! Request smuggling lives from two parsers that disagree on where a request ends. The balancer
//! writes every request anew, so hyper's reading is the only one that counts; but hyper is lenient
//! where RFC 9112 lets it be: it takes a bare LF for a line end, and lets `Transfer-Encoding`
//! override `Content-Length`. No honest client sends either, so they are refused here, by name,
//! before anything acts on them (RFC 9112 §2.2, §5.2, §6.3, §11.2).
//!
//! The gate holds back the head of each request until it is complete and clean, then follows the
//! body to know where the next head begins. It changes no byte. A head that it refuses is replaced
//! by a request for [`REFUSED_TARGET`], so that the refusal takes the ordinary way out, after the
//! answers to the requests before it.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the server is asked for in place of a request that was refused.
pub(super) const REFUSED_TARGET: &str = "/lb/refused";

const REFUSED_REQUEST: &[u8] =
    b"GET /lb/refused HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n";

/// Bytes read at once.
const READ_BYTES: usize = 8 << 10;

/// Bytes of a chunk's size line, and of a trailer section.
const CHUNK_LINE_BYTES_MAX: u32 = 4 << 10;

/// Why a head did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    HeadTooLarge,
    BareLineEnd,
    ForbiddenByte,
    FoldedHeader,
    HeaderWithoutName,
    InvalidContentLength,
    RepeatedContentLength,
    UnknownTransferEncoding,
    TwoFramings,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HeadTooLarge => "the request line and headers are too long",
            Self::BareLineEnd => "a line of the head does not end in CR LF",
            Self::ForbiddenByte => "the head has a NUL byte",
            Self::FoldedHeader => "a header is folded over several lines",
            Self::HeaderWithoutName => "a header line has no name, or blanks around it",
            Self::InvalidContentLength => "Content-Length is not one decimal number",
            Self::RepeatedContentLength => "there is more than one Content-Length",
            Self::UnknownTransferEncoding => "Transfer-Encoding is not exactly `chunked`",
            Self::TwoFramings => "both Content-Length and Transfer-Encoding are there",
        })
    }
}

/// A connection whose requests pass the gate; writing is untouched.
#[derive(Debug)]
pub(crate) struct StrictFraming<C> {
    connection: C,
    head_bytes_max: usize,
    /// Bytes that were read and not handed on. The first `passed` of them may be.
    held: BytesMut,
    passed: usize,
    state: State,
    refusal: Arc<OnceLock<Refusal>>,
}

/// Where the first byte stands that has not passed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the head of a request; `scanned` bytes of it hold no end.
    Head { scanned: usize },
    /// In a body with a `Content-Length`.
    Body { remaining: u64 },
    /// In a chunked body.
    Chunked(Chunked),
    /// Behind a request that was refused: nothing passes any more.
    Refused,
}

impl<C> StrictFraming<C> {
    /// Puts the gate before a connection. The second value tells why a request was refused.
    pub(super) fn new(connection: C, head_bytes_max: usize) -> (Self, Arc<OnceLock<Refusal>>) {
        let refusal = Arc::new(OnceLock::new());
        let gate = Self {
            connection,
            head_bytes_max,
            held: BytesMut::new(),
            passed: 0,
            state: State::Head { scanned: 0 },
            refusal: Arc::clone(&refusal),
        };
        (gate, refusal)
    }

    /// Lets as much pass as can be judged; `false` when more bytes are needed.
    fn judge(&mut self) -> io::Result<bool> {
        debug_assert_eq!(self.passed, 0, "what has passed is handed on first");
        if self.held.is_empty() {
            return Ok(false);
        }
        match self.state {
            State::Head { scanned } => Ok(self.judge_head(scanned)),
            State::Body { remaining } => {
                let held = self.held.len();
                self.passed = usize::try_from(remaining).map_or(held, |body| body.min(held));
                let remaining = remaining - self.passed as u64;
                self.state = match remaining {
                    0 => State::Head { scanned: 0 },
                    _ => State::Body { remaining },
                };
                Ok(true)
            }
            State::Chunked(mut chunked) => {
                let (passed, ended) = chunked.follow(&self.held)?;
                self.passed = passed;
                self.state = match ended {
                    true => State::Head { scanned: 0 },
                    false => State::Chunked(chunked),
                };
                Ok(true)
            }
            State::Refused => {
                self.held.clear();
                Ok(false)
            }
        }
    }

    fn judge_head(&mut self, scanned: usize) -> bool {
        // Empty lines before a request line are skipped by the parser; they are no head.
        if self.held.starts_with(b"\r\n") {
            self.passed = 2;
            self.state = State::Head { scanned: 0 };
            return true;
        }
        let verdict = match head_length(&self.held, scanned) {
            Err(refusal) => Err(refusal),
            Ok(Some(length)) if length <= self.head_bytes_max => {
                framing(&self.held[..length]).map(|body| (length, body))
            }
            Ok(None) if self.held.len() < self.head_bytes_max => {
                self.state = State::Head { scanned: self.held.len() };
                return false;
            }
            Ok(_) => Err(Refusal::HeadTooLarge),
        };
        match verdict {
            Ok((length, next)) => {
                self.passed = length;
                self.state = next;
            }
            Err(refusal) => {
                // Set once: after it, nothing else is judged.
                let _ = self.refusal.set(refusal);
                self.held = BytesMut::from(REFUSED_REQUEST);
                self.passed = self.held.len();
                self.state = State::Refused;
            }
        }
        true
    }
}

/// The length of the head with its empty line, if it is all there. Every line must end in CR LF.
fn head_length(held: &[u8], scanned: usize) -> Result<Option<usize>, Refusal> {
    // An end found now has at most three of its bytes in what was scanned before.
    let from = scanned.saturating_sub(3);
    for (index, &byte) in held.iter().enumerate().skip(from) {
        match byte {
            0 => return Err(Refusal::ForbiddenByte),
            b'\n' if index == 0 || held[index - 1] != b'\r' => return Err(Refusal::BareLineEnd),
            b'\n' if held[..index].ends_with(b"\r\n\r") => return Ok(Some(index + 1)),
            b'\r' if held.get(index + 1).is_some_and(|&next| next != b'\n') => {
                return Err(Refusal::BareLineEnd);
            }
            _ => {}
        }
    }
    Ok(None)
}

/// What follows a complete head, as told by its headers.
fn framing(head: &[u8]) -> Result<State, Refusal> {
    let mut length = None;
    let mut chunked = false;
    let lines = head[..head.len() - 4].split(|&byte| byte == b'\n').skip(1);
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first().is_some_and(|byte| is_blank(*byte)) {
            return Err(Refusal::FoldedHeader);
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            return Err(Refusal::HeaderWithoutName);
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || name.iter().any(|&byte| is_blank(byte)) {
            return Err(Refusal::HeaderWithoutName);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err(Refusal::RepeatedContentLength);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::UnknownTransferEncoding);
            }
            chunked = true;
        }
    }
    match (length, chunked) {
        (Some(_), true) => Err(Refusal::TwoFramings),
        (None, true) => Ok(State::Chunked(Chunked::Size { value: 0, line: 0 })),
        (None | Some(0), false) => Ok(State::Head { scanned: 0 }),
        (Some(remaining), false) => Ok(State::Body { remaining }),
    }
}

fn content_length(value: &[u8]) -> Result<u64, Refusal> {
    // `u64::from_str` would take a sign.
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let number = str::from_utf8(value).ok().filter(|_| digits);
    number.and_then(|text| text.parse().ok()).ok_or(Refusal::InvalidContentLength)
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Where in a chunked body (RFC 9112 §7.1). `line` counts the bytes of a line, to bound it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunked {
    Size {
        value: u64,
        line: u32,
    },
    Extension {
        value: u64,
        line: u32,
    },
    SizeLineFeed {
        value: u64,
    },
    Data {
        remaining: u64,
    },
    DataReturn,
    DataLineFeed,
    /// `line` counts the whole trailer section; `empty` says that the line has no byte yet.
    Trailer {
        line: u32,
        empty: bool,
    },
    TrailerLineFeed {
        line: u32,
        empty: bool,
    },
}

impl Chunked {
    /// Follows the body through `bytes`: how many of them belong to it, and whether it ended.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<(usize, bool)> {
        let mut index = 0;
        while index < bytes.len() {
            if let Self::Data { remaining } = *self {
                let here = (bytes.len() - index) as u64;
                let data = remaining.min(here);
                index += usize::try_from(data).expect("no more than what is held");
                *self = match remaining - data {
                    0 => Self::DataReturn,
                    remaining => Self::Data { remaining },
                };
                continue;
            }
            let ended = self.step(bytes[index])?;
            index += 1;
            if ended {
                return Ok((index, true));
            }
        }
        Ok((index, false))
    }

    /// One byte outside of the data; `true` when it was the last of the body.
    fn step(&mut self, byte: u8) -> io::Result<bool> {
        *self = match (*self, byte) {
            (Self::Size { value, line }, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                let value = value.checked_mul(16).ok_or_else(malformed)? + u64::from(digit);
                Self::Size { value, line: longer(line)? }
            }
            (Self::Size { value, line: 1.. } | Self::Extension { value, .. }, b'\r') => {
                Self::SizeLineFeed { value }
            }
            (Self::Size { value, line: line @ 1.. }, b';') => Self::Extension { value, line },
            (Self::Extension { value, line }, _) if byte != b'\n' => {
                Self::Extension { value, line: longer(line)? }
            }
            (Self::SizeLineFeed { value: 0 }, b'\n') => Self::Trailer { line: 0, empty: true },
            (Self::SizeLineFeed { value }, b'\n') => Self::Data { remaining: value },
            (Self::DataReturn, b'\r') => Self::DataLineFeed,
            (Self::DataLineFeed, b'\n') => Self::Size { value: 0, line: 0 },
            (Self::Trailer { line, empty }, b'\r') => Self::TrailerLineFeed { line, empty },
            (Self::Trailer { line, .. }, _) if byte != b'\n' => {
                Self::Trailer { line: longer(line)?, empty: false }
            }
            (Self::TrailerLineFeed { empty: true, .. }, b'\n') => return Ok(true),
            (Self::TrailerLineFeed { line, .. }, b'\n') => Self::Trailer { line, empty: true },
            _ => return Err(malformed()),
        };
        Ok(false)
    }
}

fn longer(line: u32) -> io::Result<u32> {
    if line < CHUNK_LINE_BYTES_MAX { Ok(line + 1) } else { Err(malformed()) }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the chunked body is malformed")
}

impl<C: AsyncRead + Unpin> AsyncRead for StrictFraming<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gate = self.get_mut();
        loop {
            if gate.passed > 0 {
                let handed = gate.passed.min(buf.remaining());
                buf.put_slice(&gate.held[..handed]);
                gate.held.advance(handed);
                gate.passed -= handed;
                return Poll::Ready(Ok(()));
            }
            if gate.judge()? {
                continue;
            }
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut gate.connection).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                // What is held is a head that will never be complete; the parser need not see it.
                return Poll::Ready(Ok(()));
            }
            gate.held.extend_from_slice(read.filled());
        }
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for StrictFraming<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
