//! Any octets as an IPv6 packet. The packet that is written of what was read reads the same.

use protocol::wire::{
    ALL_MLDV2_ROUTERS, MLDV2_RECORD_LENGTH, MLDV2_REPORT_OVERHEAD, Message, Record, ReportBuilder,
    Sources, parse,
};

/// Reads the packet as it is, and once more with its lengths and checksum mended, so that not all
/// of them are noise.
pub fn run(data: &[u8]) {
    check(data);
    let mut packet = data.to_vec();
    if mend(&mut packet).is_some() {
        check(&packet);
    }
}

fn check(packet: &[u8]) {
    let Ok(message) = parse(packet) else { return };
    // Behind shorter headers a message may be longer, but never longer than an IPv6 packet holds.
    let mut buffer = vec![0xaa; 40 + 65_535];
    let length = match &message {
        Message::NeighborSolicitation(solicitation) => solicitation.emit(&mut buffer),
        Message::NeighborAdvertisement(advertisement) => advertisement.emit(&mut buffer),
        Message::Query(query) => query.emit(&mut buffer),
        Message::ReportV1(report) => report.emit(&mut buffer),
        Message::Done(done) => done.emit(&mut buffer),
        Message::ReportV2(report) => {
            let mut builder = ReportBuilder::new(&mut buffer);
            for record in report.records.clone() {
                assert!(builder.push(record.record_type, record.group));
            }
            let count = report.records.clone().count();
            let length = builder.finish(report.source);
            // A report without records says nothing, and is never written.
            assert_eq!(length.is_none(), count == 0);
            if let Some(length) = length {
                let records = count * MLDV2_RECORD_LENGTH;
                assert_eq!(length, MLDV2_REPORT_OVERHEAD + records);
            }
            length.or(Some(0))
        }
    };
    let length = length.expect("there is room");
    // The written packet lacks options, sources of records and auxiliary data. It gains nothing but
    // a Hop-by-Hop option that pads.
    assert!(length <= packet.len(), "longer than what was read");
    assert!(
        buffer[length..].iter().all(|octet| *octet == 0xaa),
        "written behind the end"
    );
    let packet = &buffer[..length];
    match message {
        Message::ReportV2(_) if length == 0 => {}
        Message::ReportV2(report) => {
            let Ok(Message::ReportV2(again)) = parse(packet) else {
                panic!("not read again")
            };
            assert_eq!(packet[24..40], ALL_MLDV2_ROUTERS.octets());
            assert_eq!(again.source, report.source);
            assert!(again.records.eq(report.records.map(|record| Record {
                sources: Sources::default(),
                ..record
            })));
        }
        message => {
            assert_eq!(parse(packet), Ok(message));
            let whole = packet.to_vec();
            // The shortest buffer that the packet fits into, and the longest that it does not fit
            // into.
            for (room, fits) in [(length, true), (length - 1, false)] {
                let mut buffer = vec![0; room];
                let message = parse(&whole).expect("it was read before");
                let again = match message {
                    Message::NeighborSolicitation(solicitation) => solicitation.emit(&mut buffer),
                    Message::NeighborAdvertisement(advertisement) => {
                        advertisement.emit(&mut buffer)
                    }
                    Message::Query(query) => query.emit(&mut buffer),
                    Message::ReportV1(report) => report.emit(&mut buffer),
                    Message::Done(done) => done.emit(&mut buffer),
                    Message::ReportV2(_) => unreachable!("above"),
                };
                assert_eq!(again, fits.then_some(length));
                assert!(!fits || buffer == whole, "the same octets");
            }
        }
    }
}

/// Sets version, payload length and checksum of what looks like ICMPv6, with or without a
/// Hop-by-Hop header.
pub fn mend(packet: &mut [u8]) -> Option<()> {
    let payload = u16::try_from(packet.len().checked_sub(40)?).ok()?;
    packet[0] = 0x60;
    packet[4..6].copy_from_slice(&payload.to_be_bytes());
    let start = match packet[6] {
        0 => 40 + (usize::from(*packet.get(41)?) + 1) * 8,
        _ => 40,
    };
    let (addresses, icmpv6) = packet.split_at_mut_checked(start)?;
    icmpv6.get_mut(2..4)?.fill(0);
    let sum = |octets: &[u8]| -> u64 {
        let words = octets.chunks(2);
        words
            .map(|word| u64::from(word[0]) << 8 | u64::from(*word.get(1).unwrap_or(&0)))
            .sum()
    };
    let mut total = sum(&addresses[8..40]) + sum(icmpv6) + icmpv6.len() as u64 + 58;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    icmpv6[2..4].copy_from_slice(&(!(total as u16)).to_be_bytes());
    Some(())
}
