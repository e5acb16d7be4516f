//! The messages of MLDv1 (RFC 2710) and MLDv2 (RFC 3810), parsed and emitted.

use core::net::Ipv6Addr;

use smoltcp::wire::MldAddressRecord;

pub use smoltcp::wire::MldRecordType as RecordType;

use super::{
    DropReason, Envelope, TYPE_DONE, TYPE_QUERY, TYPE_REPORT_V1, TYPE_REPORT_V2, address_of,
    emit_mld,
};
use crate::time::Duration;

/// `ff02::1`, the destination of General Queries (RFC 3810 §5.1.15).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// `ff02::2`, the destination of Done messages (RFC 2710 §4).
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// `ff02::16`, the destination of MLDv2 Reports (RFC 3810 §5.2.14).
pub const ALL_MLDV2_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);

/// A Multicast Listener Query (RFC 2710 §3, RFC 3810 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    pub source: Ipv6Addr,
    pub destination: Ipv6Addr,
    /// `::` in a General Query.
    pub group: Ipv6Addr,
    /// The time in which a listener must report, 0 to 8,387,584 ms (RFC 3810 §5.1.3).
    pub max_response_delay: Duration,
    pub version: QueryVersion<'a>,
}

/// The version of a query, with the fields that only MLDv2 has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryVersion<'a> {
    V1,
    V2 {
        /// The S flag (RFC 3810 §5.1.7).
        suppress_router_processing: bool,
        /// The querier's robustness variable, 0 to 7. [`Query::emit`] writes 0 for a value above 7
        /// (RFC 3810 §5.1.8).
        robustness: u8,
        /// The querier's query interval, 0 to 31,744 s (RFC 3810 §5.1.9).
        query_interval: Duration,
        sources: Sources<'a>,
    },
}

impl<'a> Query<'a> {
    /// Parses a received message and checks it by RFC 3810 §6.2 and §8.1.
    pub(super) fn parse(envelope: &Envelope, icmpv6: &'a [u8]) -> Result<Self, DropReason> {
        check_mld(envelope, icmpv6)?;
        // RFC 3810 §8.1: "MLDv1 Query: length = 24 octets; MLDv2 Query: length >= 28 octets".
        // A query of another length "MUST be silently ignored".
        if !matches!(icmpv6.len(), V1_LENGTH | V2_QUERY_LENGTH..) {
            return Err(DropReason::QueryLength);
        }
        let group = address_of(icmpv6)?;
        if !(group.is_unspecified() || group.is_multicast()) {
            return Err(DropReason::NotMulticast);
        }
        let &[_, _, _, _, code_high, code_low, ..] = icmpv6 else {
            return Err(DropReason::Truncated);
        };
        let code = u16::from_be_bytes([code_high, code_low]);
        let fixed = icmpv6.get(V1_LENGTH..).and_then(<[u8]>::first_chunk);
        let (max_response_delay, version) = match fixed {
            None => (u32::from(code), QueryVersion::V1),
            Some(&[flags, interval, count_high, count_low]) => {
                let count = u16::from_be_bytes([count_high, count_low]);
                let octets = icmpv6.get(V2_QUERY_LENGTH..).unwrap_or_default();
                let version = QueryVersion::V2 {
                    suppress_router_processing: flags & 0b1000 != 0,
                    robustness: flags & 0b0111,
                    query_interval: Duration::from_secs(decode_query_interval(interval).into()),
                    sources: Sources::first(count, octets).ok_or(DropReason::RecordOverrun)?,
                };
                (decode_response_code(code), version)
            }
        };
        Ok(Query {
            source: envelope.source,
            destination: envelope.destination,
            group,
            max_response_delay: Duration::from_millis(max_response_delay.into()),
            version,
        })
    }

    /// Builds the IPv6 packet at the start of `buffer`. Returns its length in octets: 72 for MLDv1,
    /// 76 plus 16 a source for MLDv2; `None` if the buffer is too small. A time that its field
    /// cannot hold is rounded down to one that it can.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        let delay = u32::try_from(self.max_response_delay.as_millis()).unwrap_or(u32::MAX);
        let (length, code) = match &self.version {
            QueryVersion::V1 => (V1_LENGTH, u16::try_from(delay).unwrap_or(u16::MAX)),
            QueryVersion::V2 { sources, .. } => (
                V2_QUERY_LENGTH.checked_add(sources.0.len())?,
                encode_response_code(delay),
            ),
        };
        emit_mld(
            buffer,
            self.source,
            self.destination,
            TYPE_QUERY,
            length,
            |icmpv6| {
                let Some((fixed, rest)) = icmpv6.split_first_chunk_mut() else {
                    return;
                };
                *fixed = v1_body(code, self.group);
                if let QueryVersion::V2 {
                    suppress_router_processing,
                    robustness,
                    query_interval,
                    sources,
                } = &self.version
                    && let Some((fixed, octets)) = rest.split_first_chunk_mut()
                {
                    // RFC 3810 §5.1.8: if the robustness variable exceeds 7, the field is 0.
                    let robustness = if *robustness > 7 { 0 } else { *robustness };
                    let flags = u8::from(*suppress_router_processing) << 3 | robustness;
                    let interval = encode_query_interval(query_interval.as_secs());
                    let [high, low] = sources.count().to_be_bytes();
                    *fixed = [flags, interval, high, low];
                    octets.copy_from_slice(sources.0);
                }
            },
        )
    }
}

/// An MLDv1 Report (RFC 2710 §3): `source` listens to `group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportV1 {
    pub source: Ipv6Addr,
    pub group: Ipv6Addr,
}

impl ReportV1 {
    pub(super) fn parse(envelope: &Envelope, icmpv6: &[u8]) -> Result<Self, DropReason> {
        let group = check_v1(envelope, icmpv6)?;
        let source = envelope.source;
        Ok(ReportV1 { source, group })
    }

    /// Builds the IPv6 packet at the start of `buffer`. Its destination is the group itself
    /// (RFC 2710 §4). Returns its length, 72 octets; `None` if the buffer is too small.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        emit_v1(buffer, TYPE_REPORT_V1, self.source, self.group, self.group)
    }
}

/// An MLDv1 Done (RFC 2710 §3): `source` no longer listens to `group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    pub source: Ipv6Addr,
    pub group: Ipv6Addr,
}

impl Done {
    pub(super) fn parse(envelope: &Envelope, icmpv6: &[u8]) -> Result<Self, DropReason> {
        let group = check_v1(envelope, icmpv6)?;
        let source = envelope.source;
        Ok(Done { source, group })
    }

    /// Builds the IPv6 packet at the start of `buffer`. Its destination is [`ALL_ROUTERS`]
    /// (RFC 2710 §4). Returns its length, 72 octets; `None` if the buffer is too small.
    pub fn emit(&self, buffer: &mut [u8]) -> Option<usize> {
        emit_v1(buffer, TYPE_DONE, self.source, ALL_ROUTERS, self.group)
    }
}

/// An MLDv2 Report (RFC 3810 §5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportV2<'a> {
    pub source: Ipv6Addr,
    pub records: Records<'a>,
}

impl<'a> ReportV2<'a> {
    /// Parses a received message and checks it, the bounds of every record included, by RFC 3810
    /// §5.2 and §7.4.
    pub(super) fn parse(envelope: &Envelope, icmpv6: &'a [u8]) -> Result<Self, DropReason> {
        check_mld(envelope, icmpv6)?;
        let Some((&[.., count_high, count_low], octets)) =
            icmpv6.split_first_chunk::<V2_REPORT_HEADER_LENGTH>()
        else {
            return Err(DropReason::Truncated);
        };
        let count = u16::from_be_bytes([count_high, count_low]);
        let records = Records { count, octets };
        if records.clone().count() != usize::from(count) {
            return Err(DropReason::RecordOverrun);
        }
        Ok(ReportV2 {
            source: envelope.source,
            records,
        })
    }
}

/// The multicast address records of a report, in the report's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Records<'a> {
    count: u16,
    octets: &'a [u8],
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        self.count = self.count.checked_sub(1)?;
        let header = MldAddressRecord::new_checked(self.octets).ok()?;
        let behind = self.octets.get(MLDV2_RECORD_LENGTH..)?;
        let sources = Sources::first(header.num_srcs(), behind)?;
        // RFC 3810 §5.2.6: the field counts 32-bit words.
        let auxiliary = usize::from(header.aux_data_len()).saturating_mul(4);
        self.octets = behind.get(sources.0.len()..)?.get(auxiliary..)?;
        Some(Record {
            record_type: header.record_type(),
            group: header.mcast_addr(),
            sources,
        })
    }
}

/// One multicast address record (RFC 3810 §5.2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// A receiver ignores a record of type `Unknown(n)`, but not the other records of the report
    /// (RFC 3810 §5.2.12).
    pub record_type: RecordType,
    /// As received. The parser does not check that it is a multicast address.
    pub group: Ipv6Addr,
    pub sources: Sources<'a>,
}

impl Record<'_> {
    /// Whether the sender listens to the group (RFC 3810 §4.2, §5.2.12). `None` if the record
    /// does not tell.
    pub fn listens(&self) -> Option<bool> {
        match self.record_type {
            RecordType::ModeIsExclude
            | RecordType::ChangeToExclude
            | RecordType::AllowNewSources => Some(true),
            RecordType::ModeIsInclude | RecordType::ChangeToInclude => {
                Some(self.sources.count() > 0)
            }
            // The sender blocks some sources; it may listen to others.
            RecordType::BlockOldSources | RecordType::Unknown(_) => None,
        }
    }
}

/// A list of source addresses, in the octets of the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources<'a>(&'a [u8]);

impl<'a> Sources<'a> {
    /// The first `count` addresses of `octets`; `None` if there are fewer.
    fn first(count: u16, octets: &'a [u8]) -> Option<Self> {
        octets
            .get(..usize::from(count).checked_mul(ADDRESS_LENGTH)?)
            .map(Sources)
    }

    /// Writes addresses to `octets`, as many as fit, and returns the list of them.
    pub fn write(addresses: impl Iterator<Item = Ipv6Addr>, octets: &'a mut [u8]) -> Self {
        let mut length: usize = 0;
        let (free, _) = octets.as_chunks_mut::<ADDRESS_LENGTH>();
        for (place, address) in free.iter_mut().zip(addresses) {
            *place = address.octets();
            length = length.saturating_add(ADDRESS_LENGTH);
        }
        Sources(octets.get(..length).unwrap_or_default())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, address: Ipv6Addr) -> bool {
        self.iter().any(|source| source == address)
    }

    pub fn count(&self) -> u16 {
        let (addresses, _) = self.0.as_chunks::<ADDRESS_LENGTH>();
        u16::try_from(addresses.len()).unwrap_or(u16::MAX)
    }

    pub fn iter(&self) -> impl Iterator<Item = Ipv6Addr> + use<'a> {
        let (addresses, _) = self.0.as_chunks::<ADDRESS_LENGTH>();
        addresses.iter().map(|octets| Ipv6Addr::from(*octets))
    }
}

/// Builds one MLDv2 Report in a buffer, with as many records as fit.
pub struct ReportBuilder<'b> {
    buffer: &'b mut [u8],
    count: u16,
    length: usize,
}

impl<'b> ReportBuilder<'b> {
    /// Starts a report without records. The packet never outgrows `buffer`, so the caller lends at
    /// most the upstream's MTU.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        let length = buffer.len().min(IPV6_MAX_LENGTH);
        ReportBuilder {
            buffer: buffer.get_mut(..length).unwrap_or_default(),
            count: 0,
            length: MLDV2_REPORT_OVERHEAD,
        }
    }

    /// Adds a record without sources, as [`Self::push_with`] does.
    #[must_use]
    pub fn push(&mut self, record_type: RecordType, group: Ipv6Addr) -> bool {
        self.push_with(record_type, group, Sources::default())
    }

    /// Adds a record without auxiliary data. Returns false, and adds nothing, if the record does
    /// not fit.
    #[must_use]
    pub fn push_with(
        &mut self,
        record_type: RecordType,
        group: Ipv6Addr,
        sources: Sources<'_>,
    ) -> bool {
        let behind = self.buffer.get_mut(self.length..).unwrap_or_default();
        let free = behind.split_first_chunk_mut::<MLDV2_RECORD_LENGTH>();
        let (Some((record, rest)), Some(count)) = (free, self.count.checked_add(1)) else {
            return false;
        };
        let Some(list) = rest.get_mut(..sources.0.len()) else {
            return false;
        };
        *record = [0; MLDV2_RECORD_LENGTH];
        record[0] = record_type.into();
        record[2..4].copy_from_slice(&sources.count().to_be_bytes());
        record[4..].copy_from_slice(&group.octets());
        list.copy_from_slice(sources.0);
        self.count = count;
        let length = MLDV2_RECORD_LENGTH.saturating_add(sources.0.len());
        self.length = self.length.saturating_add(length);
        true
    }

    /// Writes the headers. Returns the length of the packet in octets; `None` if the report has no
    /// records, or if the buffer is too small.
    pub fn finish(self, source: Ipv6Addr) -> Option<usize> {
        let records = self.length.checked_sub(MLDV2_REPORT_OVERHEAD)?;
        let length = V2_REPORT_HEADER_LENGTH.checked_add(records)?;
        if self.count == 0 {
            return None;
        }
        emit_mld(
            self.buffer,
            source,
            ALL_MLDV2_ROUTERS,
            TYPE_REPORT_V2,
            length,
            |icmpv6| {
                if let Some([.., high, low]) = icmpv6.first_chunk_mut::<V2_REPORT_HEADER_LENGTH>() {
                    [*high, *low] = self.count.to_be_bytes();
                }
            },
        )
    }
}

/// The octets before the first record of an MLDv2 Report: the IPv6 header, the Hop-by-Hop header
/// and the header of the report.
pub const MLDV2_REPORT_OVERHEAD: usize = 40 + 8 + V2_REPORT_HEADER_LENGTH;
/// The octets of a record without sources and without auxiliary data.
pub const MLDV2_RECORD_LENGTH: usize = 20;

/// The octets of the IPv6 header and of the largest payload that its 16-bit length can name
/// (RFC 8200 §3).
const IPV6_MAX_LENGTH: usize = 40 + u16::MAX as usize;
const ADDRESS_LENGTH: usize = 16;
const V1_LENGTH: usize = 24;
const V2_QUERY_LENGTH: usize = 28;
const V2_REPORT_HEADER_LENGTH: usize = 8;

const MLD_HOP_LIMIT: u8 = 1;

/// The checks that all MLD messages share (RFC 2710 §3, RFC 3810 §5, §6.2, §7.4). A host may
/// send a report from `::`, but a router silently discards it (RFC 3810 §5.2.13), and so does
/// this.
fn check_mld(envelope: &Envelope, icmpv6: &[u8]) -> Result<(), DropReason> {
    envelope.check(icmpv6, MLD_HOP_LIMIT)?;
    if !envelope.source.is_unicast_link_local() {
        return Err(DropReason::NotLinkLocal);
    }
    if !envelope.router_alert {
        return Err(DropReason::NoRouterAlert);
    }
    Ok(())
}

/// Checks an MLDv1 Report or Done and returns its group. A receiver ignores the octets past the
/// 24th (RFC 2710 §3.7).
fn check_v1(envelope: &Envelope, icmpv6: &[u8]) -> Result<Ipv6Addr, DropReason> {
    check_mld(envelope, icmpv6)?;
    let group = address_of(icmpv6)?;
    if !group.is_multicast() {
        return Err(DropReason::NotMulticast);
    }
    Ok(group)
}

/// The first 24 octets of MLDv1 messages and of queries of both versions. [`emit_mld`] writes the
/// type and the checksum, which are 0 here.
fn v1_body(response_code: u16, group: Ipv6Addr) -> [u8; V1_LENGTH] {
    let mut body = [0; V1_LENGTH];
    body[4..6].copy_from_slice(&response_code.to_be_bytes());
    body[8..].copy_from_slice(&group.octets());
    body
}

fn emit_v1(
    buffer: &mut [u8],
    message_type: u8,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    group: Ipv6Addr,
) -> Option<usize> {
    emit_mld(
        buffer,
        source,
        destination,
        message_type,
        V1_LENGTH,
        |icmpv6| icmpv6.copy_from_slice(&v1_body(0, group)),
    )
}

/// Decodes a Maximum Response Code into milliseconds (RFC 3810 §5.1.3).
fn decode_response_code(code: u16) -> u32 {
    decode_float(code.into(), 12)
}

fn encode_response_code(milliseconds: u32) -> u16 {
    u16::try_from(encode_float(milliseconds, 12)).unwrap_or(u16::MAX)
}

/// Decodes a Querier's Query Interval Code into seconds (RFC 3810 §5.1.9).
fn decode_query_interval(code: u8) -> u32 {
    decode_float(code.into(), 4)
}

fn encode_query_interval(seconds: u64) -> u8 {
    let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
    u8::try_from(encode_float(seconds, 4)).unwrap_or(u8::MAX)
}

/// Decodes the codes of RFC 3810 §5.1.3 and §5.1.9. If the first bit is 0, the code is the value;
/// else it is the floating-point number `1 | exponent (3 bits) | mantissa`.
#[allow(
    clippy::arithmetic_side_effects,
    reason = "mantissa_bits is 4 or 12: no shift reaches 32"
)]
const fn decode_float(code: u32, mantissa_bits: u32) -> u32 {
    if code < 1 << (mantissa_bits + 3) {
        return code;
    }
    let mantissa = code & ((1 << mantissa_bits) - 1) | 1 << mantissa_bits;
    let exponent = code >> mantissa_bits & 0b111;
    mantissa << (exponent + 3)
}

/// The code of the largest value that a code can hold and that does not exceed `value`.
#[allow(
    clippy::arithmetic_side_effects,
    reason = "value is at least 2^(mantissa_bits + 3) where its logarithm is used"
)]
const fn encode_float(value: u32, mantissa_bits: u32) -> u32 {
    let first_bit = 1 << (mantissa_bits + 3);
    if value < first_bit {
        return value;
    }
    let largest = ((1 << (mantissa_bits + 1)) - 1) << 10;
    let value = if value > largest { largest } else { value };
    let exponent = value.ilog2() - mantissa_bits - 3;
    let mantissa = value >> (exponent + 3) & ((1 << mantissa_bits) - 1);
    first_bit | exponent << mantissa_bits | mantissa
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoded_time_decodes_to_itself_or_to_the_next_smaller_one() {
        for code in 0..=u16::MAX {
            assert_eq!(encode_response_code(decode_response_code(code)), code);
        }
        for code in 0..=u8::MAX {
            assert_eq!(
                encode_query_interval(decode_query_interval(code).into()),
                code
            );
        }
        // RFC 3810 §5.1.3: the least floating-point code is 1000h << 3, the largest 1fffh << 10.
        assert_eq!(decode_response_code(0x8000), 32_768);
        assert_eq!(decode_response_code(u16::MAX), 8_387_584);
        assert_eq!(encode_response_code(32_769), 0x8000);
        assert_eq!(encode_response_code(8_388_608), u16::MAX);
        assert_eq!(encode_response_code(u32::MAX), u16::MAX);
        assert_eq!(decode_query_interval(0x80), 128);
        assert_eq!(decode_query_interval(u8::MAX), 31_744);
        assert_eq!(encode_query_interval(32_768), u8::MAX);
        assert_eq!(encode_query_interval(u64::MAX), u8::MAX);
    }
}
