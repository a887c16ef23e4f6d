//! The record of a call: a head, the name of the task type, the lengths of the tasks' texts, and
//! the texts.
//!
//! ```text
//!   Call, 36 bytes │ name │ 4 bytes a task if there are several: lengths │ texts, unless attached
//! ```
//!
//! All integers are little-endian.

/// The head of a call's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    /// The id of its first task.
    pub id: u64,
    /// The lower half of the call's `seq`. Calls that use the same claim have different ones.
    pub seq: u32,
    pub attempt: u32,
    /// The index of its claim in the shared region.
    pub claim: u32,
    /// The length of the task's name, in bytes.
    pub name_len: u32,
    /// The number of tasks.
    pub count: u32,
    /// The time, in nanoseconds, after which a task of the call is to stop. 0: none.
    pub stop_after: u64,
}

impl Call {
    pub(crate) const LEN: usize = 36;

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        let words = [self.seq, self.attempt, self.claim, self.name_len, self.count];
        bytes[8..16].copy_from_slice(&self.stop_after.to_le_bytes());
        for (at, word) in bytes[16..].chunks_exact_mut(4).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Parses a record. `None` if it is too short or the name is not UTF-8.
    pub(crate) fn split(record: &[u8]) -> Option<(Self, Parts<'_>)> {
        let (head, rest) = record.split_first_chunk::<{ Self::LEN }>()?;
        let (id, rest_of_head) = head.split_first_chunk::<8>()?;
        let (stop_after, words) = rest_of_head.split_first_chunk::<8>()?;
        let mut words = words.chunks_exact(4).filter_map(|word| word.try_into().ok());
        let mut word = || words.next().map(u32::from_le_bytes);
        let call = Self {
            id: u64::from_le_bytes(*id),
            seq: word()?,
            attempt: word()?,
            claim: word()?,
            name_len: word()?,
            count: word()?,
            stop_after: u64::from_le_bytes(*stop_after),
        };
        let (name, rest) = rest.split_at_checked(call.name_len as usize)?;
        let number_of_lengths = if call.count > 1 { call.count as usize } else { 0 };
        let (lengths, text) = rest.split_at_checked(4 * number_of_lengths)?;
        let name = std::str::from_utf8(name).ok()?;
        Some((call, Parts { name, lengths, text }))
    }
}

/// The parts of a call's record behind its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parts<'r> {
    pub name: &'r str,
    /// 4 bytes a task, if there are several.
    lengths: &'r [u8],
    pub text: &'r [u8],
}

impl Parts<'_> {
    /// Splits a text, which may have come as an attachment, into those of the tasks. Ends early if
    /// it is too short.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn texts<'t>(&self, text: &'t [u8]) -> impl Iterator<Item = &'t [u8]> {
        let mut begin = 0;
        (0..self.lengths.len() / 4).map_while(move |task| self.text_of(task, text, &mut begin))
    }

    /// The text of this task, which begins at `begin`. The tasks follow one another.
    pub(crate) fn text_of<'t>(
        &self,
        task: usize,
        text: &'t [u8],
        begin: &mut usize,
    ) -> Option<&'t [u8]> {
        let length = self.lengths.get(4 * task..)?.first_chunk()?;
        let end = begin.checked_add(u32::from_le_bytes(*length) as usize)?;
        text.get(std::mem::replace(begin, end)..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_the_border() {
        let (id, stop_after) = (u64::MAX, u64::MAX - 1);
        let call = Call { id, seq: 7, attempt: 1, claim: 3, name_len: 5, count: 1, stop_after };
        let mut record = call.to_bytes().to_vec();
        record.extend_from_slice("fläg[1]".as_bytes());
        let parts = Parts { name: "fläg", lengths: &[], text: b"[1]" };
        assert_eq!(Call::split(&record), Some((call, parts)));
        assert_eq!(Call::split(&record[..20]), None);
        assert_eq!(Call::split(&record[..38]), None, "shorter than its name");
    }

    #[test]
    fn the_texts_of_several_tasks_are_told_apart_by_their_lengths() {
        let (id, stop_after) = (1, 0);
        let call = Call { id, seq: 1, attempt: 1, claim: 0, name_len: 1, count: 3, stop_after };
        let mut record = call.to_bytes().to_vec();
        record.push(b'n');
        record.extend([1_u32, 4, 2].map(u32::to_le_bytes).concat());
        record.extend_from_slice(b"1[\n2]{}");
        let (_, parts) = Call::split(&record).expect("sound");
        assert_eq!(parts.texts(parts.text).collect::<Vec<_>>(), [&b"1"[..], b"[\n2]", b"{}"]);
        assert_eq!(parts.texts(b"1[").count(), 1, "shorter than it says");
    }
}
