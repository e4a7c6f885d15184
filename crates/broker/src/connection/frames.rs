//! What the screen must know of AMQP 0-9-1: frames (section 2.3.5) and the numbers of methods.

/// The kinds of frames.
pub(super) const METHOD: u8 = 1;
pub(super) const HEADER: u8 = 2;
pub(super) const BODY: u8 = 3;
pub(super) const HEARTBEAT: u8 = 8;

/// Kind (1 byte), channel (2) and length of the payload (4) come before the payload of a frame, one byte after it.
pub(super) const PREFIX: usize = 7;
pub(super) const END: u8 = 0xce;

/// Class (2 bytes), weight (2) and size of the body (8) come before the properties in the payload of a content header.
pub(super) const BEFORE_PROPERTIES: usize = 12;

/// A whole heartbeat frame.
pub(super) const HEARTBEAT_FRAME: [u8; 8] = [HEARTBEAT, 0, 0, 0, 0, 0, 0, END];

/// `frame_max` must not be lower (section 4.2.3).
pub(super) const FRAME_MAX_LEAST: u32 = 4096;

/// Class and method, as they begin the payload of a method frame: those that the screen looks into.
pub(super) mod method {
    pub(in super::super) const CONNECTION_START: (u16, u16) = (10, 10);
    pub(in super::super) const CONNECTION_TUNE: (u16, u16) = (10, 30);
    pub(in super::super) const CONNECTION_OPEN_OK: (u16, u16) = (10, 41);
    pub(in super::super) const CONNECTION_CLOSE: (u16, u16) = (10, 50);
    pub(in super::super) const CONNECTION_BLOCKED: (u16, u16) = (10, 60);
    pub(in super::super) const CHANNEL_OPEN_OK: (u16, u16) = (20, 11);
    pub(in super::super) const CHANNEL_CLOSE: (u16, u16) = (20, 40);
    pub(in super::super) const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);
    pub(in super::super) const QUEUE_DECLARE_OK: (u16, u16) = (50, 11);
    pub(in super::super) const BASIC_CONSUME_OK: (u16, u16) = (60, 21);
    pub(in super::super) const BASIC_CANCEL: (u16, u16) = (60, 30);
    pub(in super::super) const BASIC_CANCEL_OK: (u16, u16) = (60, 31);
    pub(in super::super) const BASIC_RETURN: (u16, u16) = (60, 50);
    pub(in super::super) const BASIC_DELIVER: (u16, u16) = (60, 60);
    pub(in super::super) const BASIC_GET_OK: (u16, u16) = (60, 71);
    pub(in super::super) const BASIC_GET_EMPTY: (u16, u16) = (60, 72);
}
