//! Tests of the gate: what is clean passes byte for byte however it is cut, what is not is named.

use std::collections::VecDeque;
use std::task::Waker;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A connection on which these pieces arrive, one a read, and then the end.
struct Pieces(VecDeque<Vec<u8>>);

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(piece) = self.0.pop_front() {
            buf.put_slice(&piece);
        }
        Poll::Ready(Ok(()))
    }
}

/// What passes of the pieces, and the refusal.
fn pass(pieces: Vec<Vec<u8>>) -> (io::Result<Vec<u8>>, Option<Refusal>) {
    let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
    let (mut gate, refusal) = StrictFraming::new(Pieces(pieces), 1024);
    let mut passed = Vec::new();
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let mut bytes = [0; 100];
        let mut buf = ReadBuf::new(&mut bytes);
        match Pin::new(&mut gate).poll_read(&mut cx, &mut buf) {
            Poll::Pending => unreachable!("the pieces are always ready"),
            Poll::Ready(Err(error)) => return (Err(error), refusal.get().copied()),
            Poll::Ready(Ok(())) if buf.filled().is_empty() => break,
            Poll::Ready(Ok(())) => passed.extend_from_slice(buf.filled()),
        }
    }
    (Ok(passed), refusal.get().copied())
}

fn refused(bytes: &str) -> Option<Refusal> {
    let (passed, refusal) = pass(vec![bytes.as_bytes().to_vec()]);
    if refusal.is_some() {
        assert!(passed.unwrap().ends_with(REFUSED_REQUEST), "{bytes:?}");
    }
    refusal
}

#[test]
fn a_doubtful_head_is_refused_by_name() {
    let with = |headers: &str| refused(&format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n"));
    assert_eq!(with("Content-Length: 0"), None);
    for (headers, refusal) in [
        ("Content-Length: 5\r\nContent-Length: 6", Refusal::RepeatedContentLength),
        ("Content-Length: 5\r\nContent-Length: 5", Refusal::RepeatedContentLength),
        ("Content-Length: 5, 5", Refusal::InvalidContentLength),
        ("Content-Length: +5", Refusal::InvalidContentLength),
        ("Content-Length: -5", Refusal::InvalidContentLength),
        ("Content-Length: 0x5", Refusal::InvalidContentLength),
        ("Content-Length:", Refusal::InvalidContentLength),
        ("Content-Length: 99999999999999999999", Refusal::InvalidContentLength),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", Refusal::TwoFramings),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", Refusal::TwoFramings),
        ("Transfer-Encoding: chunked\r\ncontent-length: 0", Refusal::TwoFramings),
        ("Transfer-Encoding: gzip, chunked", Refusal::UnknownTransferEncoding),
        ("Transfer-Encoding: identity", Refusal::UnknownTransferEncoding),
        ("Transfer-Encoding: xchunked", Refusal::UnknownTransferEncoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            Refusal::UnknownTransferEncoding,
        ),
        ("Transfer-Encoding:\x0bchunked", Refusal::UnknownTransferEncoding),
        ("Transfer-Encoding : chunked", Refusal::HeaderWithoutName),
        ("Content-Length : 5", Refusal::HeaderWithoutName),
        (": 5", Refusal::HeaderWithoutName),
        ("no colon", Refusal::HeaderWithoutName),
        ("X-Long: one\r\n two", Refusal::FoldedHeader),
        ("X-Long: one\r\n\tTransfer-Encoding: chunked", Refusal::FoldedHeader),
        ("X: one\nContent-Length: 5", Refusal::BareLineEnd),
        ("X: one\rContent-Length: 5", Refusal::BareLineEnd),
        ("X: one\r\r\nY: two", Refusal::BareLineEnd),
        ("X: \0", Refusal::ForbiddenByte),
    ] {
        assert_eq!(with(headers), Some(refusal), "{headers:?}");
    }
    assert_eq!(refused("GET / HTTP/1.1\nHost: a\n\n"), Some(Refusal::BareLineEnd));
    assert_eq!(refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Some(Refusal::BareLineEnd));
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(1024));
    assert_eq!(refused(&long), Some(Refusal::HeadTooLarge));
}

#[test]
fn nothing_passes_behind_a_refusal() {
    let first = "GET /first HTTP/1.1\r\nHost: a\r\n\r\n";
    let bad = "POST /bad HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx";
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let (passed, refusal) = pass(vec![format!("{first}{bad}{smuggled}").into(), smuggled.into()]);
    assert_eq!(refusal, Some(Refusal::RepeatedContentLength));
    assert_eq!(passed.unwrap(), [first.as_bytes(), REFUSED_REQUEST].concat());
}

#[test]
fn a_malformed_chunked_body_ends_the_connection() {
    for body in [
        "5\nhello\r\n0\r\n\r\n",
        "\r\n",
        ";x\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "-1\r\n",
        "5 \r\nhello\r\n",
        "5;a\nb\r\nhello\r\n",
        "fffffffffffffffff\r\n",
        "0\r\nX: 1\n\r\n",
    ] {
        let bytes = format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let (passed, _) = pass(vec![bytes.into_bytes()]);
        assert_eq!(passed.unwrap_err().kind(), io::ErrorKind::InvalidData, "{body:?}");
    }
}

/// A request that no parser can misread.
fn clean_request() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (vec(any::<u8>(), 1..40), "(;[a-z]{1,5}(=[a-z]{1,5})?)?");
    let body = prop_oneof![
        Just(Vec::from("\r\n")),
        vec(any::<u8>(), 0..200).prop_map(|body| {
            let head = format!("Content-Length: {}\r\n\r\n", body.len());
            [head.into_bytes(), body].concat()
        }),
        (vec(chunk, 0..4), "(X-Trailer: [a-z]{0,9}\r\n){0,2}").prop_map(|(chunks, trailer)| {
            let mut bytes = Vec::from("transfer-encoding: Chunked\r\n\r\n");
            for (data, extension) in chunks {
                bytes.extend(format!("{:X}{extension}\r\n", data.len()).bytes());
                bytes.extend(data);
                bytes.extend(b"\r\n");
            }
            bytes.extend(format!("0\r\n{trailer}\r\n").bytes());
            bytes
        }),
    ];
    ("(\r\n){0,2}", "/[a-z:]{0,20}", "([A-Za-z-]{1,8}x: [ -~]{0,20}\r\n){0,4}", body).prop_map(
        |(blank, path, headers, body)| {
            let head = format!("{blank}POST {path} HTTP/1.1\r\nHost: a\r\n{headers}");
            [head.into_bytes(), body].concat()
        },
    )
}

/// The same bytes in pieces that end at these places (in thousandths of the whole).
fn cut(bytes: &[u8], mut places: Vec<usize>) -> Vec<Vec<u8>> {
    places.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for to in places.into_iter().map(|place| bytes.len() * place / 1000).chain([bytes.len()]) {
        pieces.push(bytes[from..to].to_vec());
        from = to;
    }
    pieces
}

proptest! {
    #[test]
    fn clean_requests_pass_untouched_however_they_are_cut(
        requests in vec(clean_request(), 0..5),
        places in vec(0_usize..=1000, 0..12),
    ) {
        let bytes = requests.concat();
        let (passed, refusal) = pass(cut(&bytes, places));
        prop_assert_eq!(refusal, None);
        prop_assert_eq!(passed.unwrap(), bytes);
    }

    #[test]
    fn any_bytes_are_judged_the_same_however_they_are_cut(
        prefix in clean_request(),
        bytes in vec(any::<u8>(), 0..300),
        places in vec(0_usize..=1000, 0..12),
    ) {
        let bytes = [prefix, bytes].concat();
        let (whole, refusal) = pass(vec![bytes.clone()]);
        let (in_pieces, refusal_in_pieces) = pass(cut(&bytes, places));
        prop_assert_eq!(refusal, refusal_in_pieces);
        prop_assert_eq!(whole.ok(), in_pieces.ok());
    }

    #[test]
    fn a_byte_by_byte_chunked_body_ends_where_it_ends(
        request in clean_request(),
        next in clean_request(),
    ) {
        let bytes = [request, next].concat();
        let (passed, refusal) = pass(bytes.iter().map(|&byte| vec![byte]).collect());
        prop_assert_eq!(refusal, None);
        prop_assert_eq!(passed.unwrap(), bytes);
    }
}
