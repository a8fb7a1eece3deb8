//! Reading the bytes of commands and replies: every read is checked, nothing is allocated for a
//! length that the bytes only claim.

/// Bytes that are not what they should be. Which, and where, does not matter to anyone who could act
/// on it: such bytes come from a bug or from a newer version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The first byte names a version that this one does not know.
    #[error("version {0} is not known here; upgrade this node")]
    UnknownVersion(u8),
    /// The second byte names a kind that this version does not know.
    #[error("kind {0} is not known here; upgrade this node")]
    UnknownKind(u8),
    /// The bytes end too early, go on too long, or hold a value that is not allowed.
    #[error("the bytes are damaged: {0}")]
    Damaged(&'static str),
}

/// What is left to read.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (array, rest) =
            self.0.split_first_chunk().ok_or(DecodeError::Damaged("they end too early"))?;
        self.0 = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn u128(&mut self) -> Result<u128, DecodeError> {
        self.array().map(u128::from_le_bytes)
    }

    /// A text of at most 255 bytes after its length in one byte.
    pub(crate) fn short_text(&mut self) -> Result<&'a str, DecodeError> {
        let len = usize::from(self.u8()?);
        let (text, rest) =
            self.0.split_at_checked(len).ok_or(DecodeError::Damaged("they end within a text"))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| DecodeError::Damaged("a text is not UTF-8"))
    }

    pub(crate) const fn end(&self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Damaged("they go on too long")) }
    }
}

/// Appends what [`Reader::short_text`] reads. Every text that is written has a type that bounds it
/// below 256 bytes.
pub(crate) fn put_short_text(bytes: &mut Vec<u8>, text: &str) {
    let len = u8::try_from(text.len()).expect("names and keys are bounded below 256 bytes");
    bytes.push(len);
    bytes.extend_from_slice(text.as_bytes());
}
