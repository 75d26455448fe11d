//! What a peer may make an HTTP/2 connection do without asking for anything: frames that cost their sender nothing
//! are paid for by frames that mean something, and by time.
//!
//! The h2 crate bounds memory; it answers pings, takes settings and opens windows as fast as they come. So frame
//! headers are counted as bytes pass, in both directions: resets by either side draw from one budget, because a
//! client can make the gateway reset what it does not reset itself (MadeYouReset, CVE-2025-8671). What the crate
//! refuses by itself, stream by stream, shows in the frames it sends and is counted from them.

use std::cell::Cell;

/// A kind of frame that was sent too often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Resets,
    Pings,
    Settings,
    Priorities,
    WindowUpdates,
    EmptyData,
    Goaways,
    Unknown,
}

impl Excess {
    /// Reason label of the refusal counter.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Resets => "http2_reset_flood",
            Self::Pings => "http2_ping_flood",
            Self::Settings => "http2_settings_flood",
            Self::Priorities => "http2_priority_flood",
            Self::WindowUpdates => "http2_window_update_flood",
            Self::EmptyData => "http2_empty_data_flood",
            Self::Goaways => "http2_goaway_flood",
            Self::Unknown => "http2_unknown_frame_flood",
        }
    }
}

/// Why one stream was refused, while the connection went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Fields beyond SETTINGS_MAX_HEADER_LIST_SIZE; answered 431.
    HeaderList,
    /// A message that breaks the rules of RFC 9113 section 8.
    Malformed,
    FlowControl,
    /// Frames after the end of the stream.
    Closed,
    /// More streams at a time than are allowed.
    Streams,
}

impl Fault {
    const ALL: [Self; 5] = [Self::HeaderList, Self::Malformed, Self::FlowControl, Self::Closed, Self::Streams];

    /// Reason label of the refusal counter.
    fn label(self) -> &'static str {
        match self {
            Self::HeaderList => "http2_header_list",
            Self::Malformed => "http2_malformed",
            Self::FlowControl => "http2_stream_flow_control",
            Self::Closed => "http2_stream_closed",
            Self::Streams => "http2_streams",
        }
    }

    /// Of a reset that was sent: codes that only faults of the peer lead to (RFC 9113 section 7).
    fn of(code: u32, answered: bool) -> Option<Self> {
        match code {
            1 if answered => Some(Self::HeaderList),
            1 => Some(Self::Malformed),
            3 => Some(Self::FlowControl),
            5 => Some(Self::Closed),
            7 => Some(Self::Streams),
            _ => None,
        }
    }
}

/// How much of one kind is allowed.
struct Allowance {
    most: u32,
    per_second: u32,
    left: Cell<u32>,
    /// Up to when time has been paid for.
    paid_ms: Cell<u64>,
}

impl Allowance {
    fn new(most: u32, per_second: u32, now_ms: u64) -> Self {
        Self { most, per_second, left: Cell::new(most), paid_ms: Cell::new(now_ms) }
    }

    fn earn(&self, count: u32) {
        self.left.set(self.left.get().saturating_add(count).min(self.most));
    }

    /// One less; `false`: there was none. The clock is looked at only then.
    fn spend(&self, now_ms: u64) -> bool {
        if self.left.get() == 0 {
            let passed = now_ms.saturating_sub(self.paid_ms.replace(now_ms));
            let earned = passed.saturating_mul(u64::from(self.per_second)) / 1000;
            self.earn(u32::try_from(earned).unwrap_or(u32::MAX));
        }
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }
}

/// The allowances of a connection. Figures leave room for what browsers, gRPC stacks and load generators do: a
/// window update per frame of data, a ping per round trip while data flows (gRPC's bandwidth estimation), a dozen
/// priorities per stream.
pub(crate) struct Budgets {
    resets: Allowance,
    pings: Allowance,
    settings: Allowance,
    priorities: Allowance,
    window_updates: Allowance,
    empty_data: Allowance,
    goaways: Allowance,
    unknown: Allowance,
    /// Resets by this side are the doing of others, not of the peer.
    lets_go: bool,
    excess: Cell<Option<Excess>>,
    /// Streams refused and not yet counted, by fault.
    faults: [Cell<u32>; Fault::ALL.len()],
    /// The stream answered last by a head alone.
    answered: Cell<u32>,
}

impl Budgets {
    /// Full allowances at `now_ms`, for a connection to a client.
    pub(super) fn new(now_ms: u64) -> Self {
        let allow = |most, per_second| Allowance::new(most, per_second, now_ms);
        Self {
            resets: allow(200, 50),
            pings: allow(500, 20),
            settings: allow(50, 1),
            priorities: allow(1000, 20),
            window_updates: allow(2000, 200),
            empty_data: allow(100, 10),
            goaways: allow(10, 1),
            unknown: allow(200, 10),
            lets_go: false,
            excess: Cell::new(None),
            faults: Default::default(),
            answered: Cell::new(0),
        }
    }

    /// Likewise for one to an upstream: that clients go away, whose requests are then given up, is not its fault.
    pub(super) fn outgoing(now_ms: u64) -> Self {
        Self { lets_go: true, ..Self::new(now_ms) }
    }
}

/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
/// Code of a stream that is not wanted any more (section 7).
const CANCEL: u32 = 8;
/// END_STREAM of DATA and HEADERS, ACK of SETTINGS and PING.
const FIRST_FLAG: u8 = 1;
/// PADDED of DATA.
const PADDED: u8 = 8;

impl Budgets {
    /// What was too much, once something was.
    pub(crate) fn excess(&self) -> Option<Excess> {
        self.excess.get()
    }

    /// The label of every stream that was refused since this was asked last.
    pub(crate) fn take_faults(&self, mut each: impl FnMut(&'static str)) {
        for (fault, count) in Fault::ALL.iter().zip(&self.faults) {
            (0..count.take()).for_each(|_| each(fault.label()));
        }
    }

    fn received(&self, frame: Frame, now_ms: u64) {
        let (allowance, excess) = match (frame.kind, frame.content()) {
            (DATA, 0) if frame.flags & FIRST_FLAG == 0 => (&self.empty_data, Excess::EmptyData),
            (DATA, _) => {
                self.empty_data.earn(1);
                self.pings.earn(1);
                return;
            }
            (HEADERS, _) => {
                self.priorities.earn(20);
                self.window_updates.earn(5);
                self.settings.earn(1);
                return;
            }
            (PRIORITY, _) => (&self.priorities, Excess::Priorities),
            (RST_STREAM, _) => (&self.resets, Excess::Resets),
            (SETTINGS, _) => (&self.settings, Excess::Settings),
            (PING, _) => (&self.pings, Excess::Pings),
            (WINDOW_UPDATE, _) => (&self.window_updates, Excess::WindowUpdates),
            (GOAWAY, _) => (&self.goaways, Excess::Goaways),
            // A header block has its own bounds; a promise of a client is refused by the protocol.
            (CONTINUATION | PUSH_PROMISE, _) => return,
            _ => (&self.unknown, Excess::Unknown),
        };
        self.spend(allowance, excess, now_ms);
    }

    fn spend(&self, allowance: &Allowance, excess: Excess, now_ms: u64) {
        if !allowance.spend(now_ms) && self.excess.get().is_none() {
            self.excess.set(Some(excess));
        }
    }

    fn sent(&self, frame: Frame, now_ms: u64) {
        match frame.kind {
            DATA => {
                self.window_updates.earn(10);
                self.pings.earn(1);
            }
            // A stream that ends in good order.
            HEADERS if frame.flags & FIRST_FLAG != 0 => {
                self.answered.set(frame.stream);
                self.resets.earn(1);
            }
            // NO_ERROR only spares the client the rest of a request that has been answered.
            RST_STREAM if frame.code == CANCEL && self.lets_go => {}
            RST_STREAM if frame.code != 0 => {
                if let Some(fault) = Fault::of(frame.code, frame.stream == self.answered.get()) {
                    let count = &self.faults[fault as usize];
                    count.set(count.get().saturating_add(1));
                }
                self.spend(&self.resets, Excess::Resets, now_ms);
            }
            _ => {}
        }
        if frame.kind == DATA && frame.flags & FIRST_FLAG != 0 {
            self.resets.earn(1);
        }
    }
}

/// A frame as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
    /// Of RST_STREAM.
    code: u32,
    /// Of DATA: bytes that only fill, their count included.
    padding: u32,
}

impl Frame {
    fn content(self) -> u32 {
        self.length.saturating_sub(self.padding)
    }
}

/// Bytes of a frame's header.
const HEADER: usize = 9;
/// Bytes of RST_STREAM's payload, which is looked at.
const CODE: usize = 4;
/// Bytes at the start of padded DATA's payload that are looked at.
const PAD_LENGTH: usize = 1;

/// Follows the frames in a run of bytes that comes in any pieces.
#[derive(Default)]
pub(super) struct Follower {
    held: [u8; HEADER + CODE],
    have: usize,
    skip: usize,
}

impl Follower {
    /// A follower that passes over the first `skip` bytes, which are no frames.
    pub(super) fn after(skip: usize) -> Self {
        Self { skip, ..Self::default() }
    }

    pub(super) fn received(&mut self, bytes: &[u8], budgets: &Budgets, now_ms: u64) {
        self.follow(bytes, |frame| budgets.received(frame, now_ms));
    }

    pub(super) fn sent(&mut self, bytes: &[u8], budgets: &Budgets, now_ms: u64) {
        self.follow(bytes, |frame| budgets.sent(frame, now_ms));
    }

    fn follow(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = self.wanted();
            let taken = (wanted - self.have).min(bytes.len());
            self.held[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == wanted && self.wanted() == wanted {
                let frame = self.frame();
                self.skip = frame.length as usize - (self.have - HEADER);
                self.have = 0;
                see(frame);
            }
        }
    }

    /// Bytes needed to know the frame that has begun.
    fn wanted(&self) -> usize {
        if self.have < HEADER {
            return HEADER;
        }
        let [a, b, c, kind, flags, ..] = self.held;
        match (kind, [a, b, c]) {
            (RST_STREAM, [0, 0, 4]) => HEADER + CODE,
            (DATA, length) if flags & PADDED != 0 && length != [0; 3] => HEADER + PAD_LENGTH,
            _ => HEADER,
        }
    }

    fn frame(&self) -> Frame {
        let [a, b, c, kind, flags, w, x, y, z, payload @ ..] = self.held;
        let mut frame = Frame { length: u32::from_be_bytes([0, a, b, c]), kind, flags, ..Frame::default() };
        frame.stream = u32::from_be_bytes([w, x, y, z]);
        match self.have - HEADER {
            CODE => frame.code = u32::from_be_bytes(payload),
            PAD_LENGTH => frame.padding = 1 + u32::from(payload[0]),
            _ => {}
        }
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 1]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let mut bytes = b"preface".to_vec();
        bytes.extend(frame(DATA, 0, &[7; 300]));
        bytes.extend(frame(RST_STREAM, 0, &[0, 0, 0, 8]));
        bytes.extend(frame(DATA, 1, &[]));
        bytes.extend(frame(RST_STREAM, 0, &[1]));
        let expected = [(300, DATA, 0, 0), (4, RST_STREAM, 0, 8), (0, DATA, 1, 0), (1, RST_STREAM, 0, 0)];
        for piece in [1, 2, 9, 13, 1000] {
            let (mut follower, mut seen) = (Follower::after(7), Vec::new());
            for bytes in bytes.chunks(piece) {
                follower.follow(bytes, |frame| seen.push((frame.length, frame.kind, frame.flags, frame.code)));
            }
            assert_eq!(seen, expected, "{piece}");
        }
    }

    /// How many of `bytes` may come at once before they are too much.
    fn allowed(bytes: &[u8], excess: Excess) -> usize {
        let (budgets, mut follower) = (Budgets::new(0), Follower::default());
        for count in 0..100_000 {
            follower.received(bytes, &budgets, 0);
            if let Some(found) = budgets.excess() {
                assert_eq!(found, excess);
                return count;
            }
        }
        usize::MAX
    }

    #[test]
    fn every_kind_that_means_nothing_has_its_end() {
        for (bytes, excess, most) in [
            (frame(PING, 0, &[0; 8]), Excess::Pings, 500),
            (frame(SETTINGS, 0, &[]), Excess::Settings, 50),
            (frame(PRIORITY, 0, &[0; 5]), Excess::Priorities, 1000),
            (frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]), Excess::WindowUpdates, 2000),
            (frame(DATA, 0, &[]), Excess::EmptyData, 100),
            (frame(DATA, PADDED, &[0]), Excess::EmptyData, 100),
            (frame(DATA, PADDED, &[7; 8]), Excess::EmptyData, 100),
            (frame(GOAWAY, 0, &[0; 8]), Excess::Goaways, 10),
            (frame(RST_STREAM, 0, &[0, 0, 0, 8]), Excess::Resets, 200),
            (frame(0xee, 0, &[]), Excess::Unknown, 200),
        ] {
            assert_eq!(allowed(&bytes, excess), most, "{excess:?}");
        }
        assert_eq!(allowed(&frame(DATA, 0, &[1]), Excess::EmptyData), usize::MAX);
        assert_eq!(allowed(&frame(DATA, PADDED, &[7; 9]), Excess::EmptyData), usize::MAX);
        assert_eq!(allowed(&frame(HEADERS, 1, &[1]), Excess::EmptyData), usize::MAX);
    }

    #[test]
    fn what_means_something_and_time_pay() {
        let (budgets, mut follower) = (Budgets::new(0), Follower::default());
        let (data, update) = (frame(DATA, 0, &[1]), frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]));
        for _ in 0..20_000 {
            follower.sent(&data, &budgets, 0);
            (0..2).for_each(|_| follower.received(&update, &budgets, 0));
        }
        assert_eq!(budgets.excess(), None);
        let ping = frame(PING, 0, &[0; 8]);
        for second in 0..1000 {
            (0..15).for_each(|_| follower.received(&ping, &budgets, second * 1000));
        }
        assert_eq!(budgets.excess(), None);
    }

    #[test]
    fn requests_given_up_cost_an_upstream_nothing() {
        let budgets = Budgets::outgoing(0);
        let mut sent = Follower::default();
        (0..10_000).for_each(|_| sent.sent(&frame(RST_STREAM, 0, &[0, 0, 0, CANCEL as u8]), &budgets, 0));
        assert_eq!(budgets.excess(), None);
        (0..=200).for_each(|_| sent.sent(&frame(RST_STREAM, 0, &[0, 0, 0, 1]), &budgets, 0));
        assert_eq!(budgets.excess(), Some(Excess::Resets));
    }

    #[test]
    fn resets_of_both_sides_count_together() {
        let budgets = Budgets::new(0);
        let (mut received, mut sent) = (Follower::default(), Follower::default());
        for _ in 0..100 {
            received.received(&frame(RST_STREAM, 0, &[0, 0, 0, 8]), &budgets, 0);
            sent.sent(&frame(RST_STREAM, 0, &[0, 0, 0, 1]), &budgets, 0);
            sent.sent(&frame(RST_STREAM, 0, &[0, 0, 0, 0]), &budgets, 0);
        }
        assert_eq!(budgets.excess(), None);
        sent.sent(&frame(RST_STREAM, 0, &[0, 0, 0, 1]), &budgets, 0);
        assert_eq!(budgets.excess(), Some(Excess::Resets));
    }
    #[test]
    fn streams_that_were_refused_are_told_apart() {
        let budgets = Budgets::new(0);
        let mut sent = Follower::default();
        let mut refuse = |code, answered| {
            if answered {
                sent.sent(&frame(HEADERS, 5, &[0x88]), &budgets, 0);
            }
            sent.sent(&frame(RST_STREAM, 0, &[0, 0, 0, code]), &budgets, 0);
            let mut labels = Vec::new();
            budgets.take_faults(|label| labels.push(label));
            labels
        };
        assert_eq!(refuse(1, false), ["http2_malformed"]);
        assert_eq!(refuse(3, false), ["http2_stream_flow_control"]);
        assert_eq!(refuse(5, false), ["http2_stream_closed"]);
        assert_eq!(refuse(7, false), ["http2_streams"]);
        assert_eq!(refuse(1, true), ["http2_header_list"]);
        for code in [0, 2, 8] {
            assert!(refuse(code, false).is_empty(), "{code}");
        }
    }
}
