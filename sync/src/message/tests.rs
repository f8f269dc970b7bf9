use super::*;

fn token() -> Token {
    Token::from("tok".to_owned())
}

fn bytes(data: &'static [u8]) -> Bytes {
    Bytes::from_static(data)
}

fn check<F: Frame + PartialEq + fmt::Debug>(frame: &F, golden: &str) {
    let encoded = frame.encode();
    assert_eq!(hex::encode(&encoded), golden, "{frame:?}");
    let mut buffer = FrameBuffer::new(FRAME_BYTES_MAX);
    for byte in &encoded[..encoded.len() - 1] {
        buffer.extend(&[*byte]);
        assert_eq!(buffer.next_frame::<F>(), Ok(None), "not all bytes are there");
    }
    buffer.extend(&encoded[encoded.len() - 1..]);
    assert_eq!(buffer.next_frame::<F>().unwrap().as_ref(), Some(frame));
    assert!(buffer.is_empty());
    for end in 1..encoded.len() - FRAME_LENGTH_BYTES {
        let cut = &encoded[FRAME_LENGTH_BYTES..FRAME_LENGTH_BYTES + end];
        assert!(F::decode(cut).is_err(), "cut at {end}: {frame:?}");
    }
    let mut longer = encoded[FRAME_LENGTH_BYTES..].to_vec();
    longer.push(0);
    assert!(F::decode(&longer).is_err(), "one byte more: {frame:?}");
}

#[test]
fn the_bytes_of_client_frames_never_change() {
    let store = || "s1".to_owned();
    let open =
        ClientFrame::Open { protocol: 1, store: store(), token: token(), version: bytes(&[7, 8]) };
    check(&open, "0c000000000102733103746f6b020708");
    check(&ClientFrame::Changes { patch: bytes(&[1, 2, 3]) }, "050000000103010203");
    check(&ClientFrame::Bye, "0100000002");
    let put = ClientFrame::PutBlob { store: store(), hash: [0xab; 32], size: 300 };
    check(&put, &format!("2600000003027331{}ac02", "ab".repeat(32)));
    let get = ClientFrame::GetBlob { store: store(), hash: [0xcd; 32] };
    check(&get, &format!("2400000004027331{}", "cd".repeat(32)));
    check(&ClientFrame::BlobChunk { bytes: bytes(&[9]) }, "03000000050109");
    let (version, seats) = (bytes(&[7, 8]), vec![1, 300]);
    let open =
        ClientFrame::OpenSeated { protocol: 2, store: store(), token: token(), version, seats };
    check(&open, "10000000060202733103746f6b0207080201ac02");
    let offer = ClientFrame::OfferBlob { store: store(), hash: [0xab; 32], size: 300 };
    check(&offer, &format!("2600000007027331{}ac02", "ab".repeat(32)));
    let get = ClientFrame::GetBlobFrom { store: store(), hash: [0xcd; 32], offset: 300 };
    check(&get, &format!("2600000008027331{}ac02", "cd".repeat(32)));
    let presence = ClientFrame::Presence { clock: 300, state: bytes(b"{}") };
    check(&presence, "0600000009ac02027b7d");
    check(&ClientFrame::Refresh { token: token() }, "050000000a03746f6b");
    check(&ClientFrame::Signal { to: 300, message: bytes(&[9]) }, "050000000bac020109");
}

#[test]
fn the_bytes_of_relay_frames_never_change() {
    check(&RelayFrame::Opened { version: bytes(&[5]), writable: true }, "0400000000010501");
    check(&RelayFrame::Changes { patch: bytes(&[1, 2]) }, "0400000001020102");
    check(&RelayFrame::Stored { version: bytes(&[5]) }, "03000000020105");
    check(&RelayFrame::refused(RefusalCode::Forbidden, "no"), "050000000302026e6f");
    check(&RelayFrame::BlobWanted, "0100000004");
    check(&RelayFrame::BlobStored, "0100000005");
    check(&RelayFrame::BlobFound { size: 300 }, "0300000006ac02");
    check(&RelayFrame::BlobMissing, "0100000007");
    check(&RelayFrame::BlobChunk { bytes: bytes(&[9]) }, "03000000080109");
    let seats = vec![SeatTip { replica: 300, next: 4, chain: [0xab; 32] }];
    let opened = RelayFrame::OpenedSeated { version: bytes(&[5]), writable: true, seats };
    check(&opened, &format!("2800000009010501 01ac0204{}", "ab".repeat(32)).replace(' ', ""));
    check(&RelayFrame::BlobWantedFrom { offset: 300 }, "030000000aac02");
    let (subject, state) = ("ann".to_owned(), bytes(b"{}"));
    check(
        &RelayFrame::Presence { peer: 300, subject, clock: 4, state },
        "0b0000000bac0203616e6e04027b7d",
    );
    check(&RelayFrame::PeerLeft { peer: 300, clock: 4 }, "040000000cac0204");
    let snapshot = RelayFrame::Snapshot { bytes: vec![1, 2].into(), version: vec![7].into() };
    check(&snapshot, "060000000d0201020107");
    let access = RelayFrame::Access { peer: 300, writable: true, expires_in: 400 };
    check(&access, "060000000eac02019003");
    let (subject, message) = ("ann".to_owned(), bytes(&[9]));
    check(&RelayFrame::Signal { from: 300, subject, message }, "090000000fac0203616e6e0109");
    check(&RelayFrame::NotYours { replica: 300, next: 4 }, "0400000010ac0204");
    check(&RelayFrame::ComeBack { after: 300 }, "0300000011ac02");
}

#[test]
fn a_frame_in_parts_has_the_same_bytes_and_shares_what_is_large() {
    let seats = vec![SeatTip { replica: 7, next: 300, chain: [9; 32] }];
    for size in [0, 5, FIRST_FRAME_BYTES_MAX, FIRST_FRAME_BYTES_MAX + 1, 1 << 20] {
        let version = Bytes::from(vec![3; size]);
        let opened = RelayFrame::Opened { version: version.clone(), writable: true };
        let seats = seats.clone();
        let seated = RelayFrame::OpenedSeated { version: version.clone(), writable: false, seats };
        for frame in [opened, seated, RelayFrame::Changes { patch: version.clone() }] {
            let parts = frame.encode_parts();
            assert!(parts.concat() == frame.encode(), "{size} bytes");
            let is_shared = parts.iter().any(|part| part.as_ptr() == version.as_ptr());
            let is_large = size > FIRST_FRAME_BYTES_MAX;
            assert_eq!(is_shared, is_large && !matches!(frame, RelayFrame::Changes { .. }));
        }
    }
}

#[test]
fn a_datagram_names_its_stream_and_is_read_whole_or_not_at_all() {
    let left = RelayFrame::PeerLeft { peer: 300, clock: 4 };
    let encoded = encode_datagram(200, &left);
    assert_eq!(hex::encode(&encoded), "c8010cac0204");
    assert_eq!(decode_datagram(&encoded), Ok((200, left)));
    for end in 0..encoded.len() {
        assert!(decode_datagram::<RelayFrame>(&encoded[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn every_refusal_keeps_its_number() {
    for number in 0..=u16::MAX {
        assert_eq!(RefusalCode::from_number(number).number(), number);
    }
    assert_eq!(RefusalCode::from_number(14), RefusalCode::Unrecognized(14));
    assert_eq!(RefusalCode::StorageFailed.number(), 13);
}

#[test]
fn unknown_kinds_and_empty_frames_are_errors() {
    assert_eq!(ClientFrame::decode(&[]), Err(FrameError::Empty));
    assert_eq!(ClientFrame::decode(&[12]), Err(FrameError::UnknownKind { kind: 12 }));
    assert_eq!(RelayFrame::decode(&[18]), Err(FrameError::UnknownKind { kind: 18 }));
    assert_eq!(RelayFrame::decode(&[0xff; 9]), Err(FrameError::UnknownKind { kind: 0xff }));
    assert_eq!(ClientFrame::decode(&[1, 0xff]), Err(FrameError::Malformed { kind: 1 }));
}

#[test]
fn a_frame_at_the_bound_passes_and_one_byte_more_is_refused_by_its_length_alone() {
    let frame = ClientFrame::BlobChunk { bytes: vec![0; 100].into() };
    let encoded = frame.encode();
    let size = encoded.len() - FRAME_LENGTH_BYTES;
    let mut buffer = FrameBuffer::new(size);
    buffer.extend(&encoded);
    assert_eq!(buffer.next_frame(), Ok(Some(frame)));
    let mut buffer = FrameBuffer::new(size - 1);
    buffer.extend(&encoded[..FRAME_LENGTH_BYTES]);
    let refused = buffer.next_frame::<ClientFrame>();
    assert_eq!(refused, Err(FrameError::TooLarge { size, max: size - 1 }));
    let mut buffer = FrameBuffer::new(FRAME_BYTES_MAX);
    buffer.extend(&u32::MAX.to_le_bytes());
    assert!(matches!(buffer.next_frame::<ClientFrame>(), Err(FrameError::TooLarge { .. })));
}

#[test]
fn any_bytes_give_a_frame_or_an_error() {
    // A linear congruential generator with a fixed seed: every run sees the same bytes.
    let mut state = 1_u64;
    for _ in 0..20_000 {
        let mut noise = [0_u8; 24];
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = state.to_be_bytes()[0];
        }
        noise[0] %= 19;
        let len = usize::from(noise[23] % 24);
        drop(ClientFrame::decode(&noise[..len]));
        drop(RelayFrame::decode(&noise[..len]));
    }
}

#[test]
fn a_token_never_shows() {
    let frame = ClientFrame::Open {
        protocol: 1,
        store: "s".to_owned(),
        token: Token::from("secret".to_owned()),
        version: Bytes::new(),
    };
    assert!(!format!("{frame:?}").contains("secret"));
}

#[test]
fn what_a_large_frame_took_is_given_back_with_it() {
    let mut buffer = FrameBuffer::new(FRAME_BYTES_MAX);
    let large = ClientFrame::Changes { patch: vec![7; 8 << 20].into() };
    buffer.extend(&large.encode());
    buffer.extend(&ClientFrame::Bye.encode());
    assert_eq!(buffer.begun().map(|size| size > 8 << 20), Some(true));
    assert_eq!(buffer.next_frame(), Ok(Some(large)));
    assert!(buffer.bytes.capacity() < 1 << 10, "{}", buffer.bytes.capacity());
    assert_eq!(buffer.next_frame(), Ok(Some(ClientFrame::Bye)));
}
