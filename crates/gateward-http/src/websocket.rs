//! Following WebSocket frames (RFC 6455 section 5.2) as they pass by: enough to know where one ends and whether the
//! sender has said goodbye. Nothing is checked, decoded or held back; the two ends do that.

/// A Close frame of a server that goes away: status 1001 (RFC 6455 sections 5.5.1 and 7.4.1), unmasked as a server's
/// frames are.
pub const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// Opcode of a Close frame.
const CLOSE: u8 = 0x8;
/// Longest head of a frame: two bytes, a length of eight, a mask of four.
const HEAD_MAX: usize = 14;

/// Where in the frames of one direction the bytes so far have ended.
#[derive(Debug, Default)]
pub struct FrameFollower {
    head: [u8; HEAD_MAX],
    head_len: usize,
    payload_left: u64,
    closing: bool,
}

impl FrameFollower {
    /// Follow `bytes` to the end of the frame they are in, or to the first end of a frame among them; how many that were.
    /// Fewer than all only when [`Self::is_boundary`] holds.
    pub fn advance_to_boundary(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.payload_left == 0 {
                self.head[self.head_len] = bytes[at];
                self.head_len += 1;
                at += 1;
                if self.head_len < self.head_bytes() {
                    continue;
                }
                self.closing |= self.head[0] & 0x0F == CLOSE;
                self.payload_left = self.payload_bytes();
                self.head_len = 0;
            } else {
                let left = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
                let count = left.min(bytes.len() - at);
                self.payload_left -= count as u64;
                at += count;
            }
            if self.payload_left == 0 {
                return at;
            }
        }
        at
    }

    /// Follow all of `bytes`.
    pub fn advance(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let count = self.advance_to_boundary(bytes);
            bytes = &bytes[count..];
        }
    }

    /// Whether a frame of somebody else's would fall between two frames.
    pub fn is_boundary(&self) -> bool {
        self.head_len == 0 && self.payload_left == 0
    }

    /// Whether a Close frame has passed, or begun to: its sender sends nothing more.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// Bytes of the head under way, as far as its beginning tells.
    fn head_bytes(&self) -> usize {
        if self.head_len < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    /// Bytes of the payload, of a whole head.
    fn payload_bytes(&self) -> u64 {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        match self.head[1] & 0x7F {
            126 => number(&self.head[2..4]),
            127 => number(&self.head[2..10]),
            length => u64::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// A frame with this opcode and payload.
    fn frame(opcode: u8, payload: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x80 | opcode];
        match payload {
            0..126 => frame.push(mask | payload as u8),
            126..65_536 => {
                frame.push(mask | 126);
                frame.extend_from_slice(&(payload as u16).to_be_bytes());
            }
            _ => {
                frame.push(mask | 127);
                frame.extend_from_slice(&(payload as u64).to_be_bytes());
            }
        }
        if masked {
            frame.extend_from_slice(b"mask");
        }
        // Bytes that look like the head of a Close frame.
        frame.extend(std::iter::repeat_n(0x88, payload));
        frame
    }

    #[test]
    fn frames_end_where_they_end() {
        for (opcode, payload, masked) in
            [(1, 0, false), (1, 5, true), (2, 125, false), (2, 126, true), (2, 65_535, false), (2, 70_000, true)]
        {
            let bytes = frame(opcode, payload, masked);
            let mut follower = FrameFollower::default();
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(follower.is_boundary(), at == 0, "{payload} at {at}");
                follower.advance(&[*byte]);
            }
            assert!(follower.is_boundary() && !follower.is_closing());
            let two = [&bytes[..], &GOING_AWAY].concat();
            let mut follower = FrameFollower::default();
            assert_eq!(follower.advance_to_boundary(&two), bytes.len());
            assert!(!follower.is_closing());
            follower.advance(&two[bytes.len()..]);
            assert!(follower.is_boundary() && follower.is_closing());
        }
    }

    proptest! {
        #[test]
        fn any_pieces_come_to_the_same(
            frames in vec((0..3_u8, 0..300_usize, any::<bool>()), 0..6),
            cuts in vec(1..50_usize, 1..40),
        ) {
            let bytes: Vec<u8> = frames.iter().flat_map(|(opcode, payload, masked)| frame(*opcode, *payload, *masked)).collect();
            let mut follower = FrameFollower::default();
            let mut rest = &bytes[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                follower.advance(piece);
                rest = after;
            }
            prop_assert!(follower.is_boundary() && !follower.is_closing());
        }

        #[test]
        fn any_bytes_are_followed(bytes in vec(any::<u8>(), 0..200)) {
            crate::fuzzing::websocket(&bytes);
        }

        // Payloads of random bytes are nearly always too long to end.
        #[test]
        fn frames_of_any_bytes_are_followed(bytes in vec(prop_oneof![0..4_u8, 0x80..0x8A_u8, 124..130_u8], 0..300)) {
            crate::fuzzing::websocket(&bytes);
        }
    }
}
