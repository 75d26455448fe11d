//! The type-length-value entries of version 2 (specification section 2.2.2 and the cloud providers' own).

use super::{Malformed, V2_MAX};

const ALPN: u8 = 0x01;
const AUTHORITY: u8 = 0x02;
const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
const AWS: u8 = 0xEA;
const AWS_VPCE_ID: u8 = 0x01;
const AZURE: u8 = 0xEE;
const AZURE_LINK_ID: u8 = 0x01;

/// Longest unique id the specification allows.
const UNIQUE_ID_MAX: usize = 128;
/// Longest of the texts: a host name's bound, and more than any endpoint id has.
const TEXT_MAX: usize = 255;
/// Type and length.
const ENTRY: usize = 3;

/// What of the entries is understood. Entries of other types are skipped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tlvs {
    /// The protocol the client's TLS handshake agreed on (type 0x01).
    pub alpn: Option<Vec<u8>>,
    /// The server name the client asked for (0x02).
    pub authority: Option<String>,
    /// An id of the connection (0x05).
    pub unique_id: Option<Vec<u8>>,
    /// The client's TLS session, which the sender ended (0x20).
    pub ssl: Option<Ssl>,
    /// AWS: the VPC endpoint the connection came through (0xEA, subtype 1).
    pub vpce_id: Option<String>,
    /// Azure: the link of the private endpoint it came through (0xEE, subtype 1).
    pub azure_link_id: Option<u32>,
}

/// The client's TLS session with the sender of a header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ssl {
    /// Bit 0: over TLS; bit 1: a certificate on this connection; bit 2: on this session.
    pub client: u8,
    /// 0: the client showed a certificate and it was verified.
    pub verify: u32,
    /// E.g. `TLSv1.3`.
    pub version: Option<String>,
    /// Common name of the client's certificate.
    pub common_name: Option<String>,
    /// Cipher in use.
    pub cipher: Option<String>,
}

/// The entries of `header`, a whole one, which begin at `start`; and whether it had a (right) checksum.
pub(super) fn parse(header: &[u8], start: usize) -> Result<(Tlvs, bool), Malformed> {
    let mut tlvs = Tlvs::default();
    let mut checksum = false;
    let mut at = start;
    while at < header.len() {
        let (kind, value) = entry(&header[at..])?;
        match kind {
            ALPN => once(&mut tlvs.alpn, value.to_vec())?,
            AUTHORITY => once(&mut tlvs.authority, text(value)?)?,
            CRC32C => {
                if std::mem::replace(&mut checksum, true) {
                    return Err(Malformed::Tlv);
                }
                verify(header, at + ENTRY, value)?;
            }
            UNIQUE_ID if value.len() > UNIQUE_ID_MAX => return Err(Malformed::Tlv),
            UNIQUE_ID => once(&mut tlvs.unique_id, value.to_vec())?,
            SSL => once(&mut tlvs.ssl, ssl(value)?)?,
            AWS => match value.split_first() {
                Some((&AWS_VPCE_ID, id)) => once(&mut tlvs.vpce_id, vpce_id(id)?)?,
                Some(_) => {}
                None => return Err(Malformed::Tlv),
            },
            AZURE => match value.split_first() {
                Some((&AZURE_LINK_ID, id)) => {
                    let id = id.try_into().map_err(|_| Malformed::Tlv)?;
                    once(&mut tlvs.azure_link_id, u32::from_le_bytes(id))?;
                }
                Some(_) => {}
                None => return Err(Malformed::Tlv),
            },
            _ => {}
        }
        at += ENTRY + value.len();
    }
    Ok((tlvs, checksum))
}

/// The first entry of `bytes`.
fn entry(bytes: &[u8]) -> Result<(u8, &[u8]), Malformed> {
    let &[kind, high, low, ref rest @ ..] = bytes else { return Err(Malformed::Tlv) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    rest.get(..length).map(|value| (kind, value)).ok_or(Malformed::Tlv)
}

/// Of two entries that say the same thing one is not by who is trusted to say it.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    if slot.replace(value).is_some() { Err(Malformed::Tlv) } else { Ok(()) }
}

fn text(value: &[u8]) -> Result<String, Malformed> {
    let text = str::from_utf8(value).ok().filter(|text| text.len() <= TEXT_MAX && !text.contains(char::is_control));
    text.map(str::to_owned).ok_or(Malformed::Tlv)
}

/// AWS: `^[A-Za-z0-9-]*$`. It becomes a label and a log field, so nothing else may pass.
fn vpce_id(value: &[u8]) -> Result<String, Malformed> {
    let id = text(value)?;
    if id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') { Ok(id) } else { Err(Malformed::Tlv) }
}

fn ssl(value: &[u8]) -> Result<Ssl, Malformed> {
    let &[client, a, b, c, d, ref rest @ ..] = value else { return Err(Malformed::Tlv) };
    let mut ssl = Ssl { client, verify: u32::from_be_bytes([a, b, c, d]), ..Ssl::default() };
    let mut rest = rest;
    while !rest.is_empty() {
        let (kind, value) = entry(rest)?;
        match kind {
            SSL_VERSION => once(&mut ssl.version, text(value)?)?,
            SSL_CN => once(&mut ssl.common_name, text(value)?)?,
            SSL_CIPHER => once(&mut ssl.cipher, text(value)?)?,
            _ => {}
        }
        rest = &rest[ENTRY + value.len()..];
    }
    Ok(ssl)
}

/// Append the entries to the header that begins at `start` of `out`, the checksum as zeros. An entry that would make
/// the header too long for [`super::parse`] is left out.
pub(super) fn write(tlvs: &Tlvs, checksum: bool, start: usize, out: &mut Vec<u8>) {
    if checksum {
        put(CRC32C, &[&[0; 4]], start, out);
    }
    if let Some(alpn) = &tlvs.alpn {
        put(ALPN, &[alpn], start, out);
    }
    if let Some(authority) = &tlvs.authority {
        put(AUTHORITY, &[authority.as_bytes()], start, out);
    }
    if let Some(id) = &tlvs.unique_id {
        put(UNIQUE_ID, &[id], start, out);
    }
    if let Some(ssl) = &tlvs.ssl {
        let mut value = vec![ssl.client];
        value.extend_from_slice(&ssl.verify.to_be_bytes());
        for (kind, text) in [(SSL_VERSION, &ssl.version), (SSL_CN, &ssl.common_name), (SSL_CIPHER, &ssl.cipher)] {
            if let Some(text) = text {
                put(kind, &[text.as_bytes()], 0, &mut value);
            }
        }
        put(SSL, &[&value], start, out);
    }
    if let Some(id) = &tlvs.vpce_id {
        put(AWS, &[&[AWS_VPCE_ID], id.as_bytes()], start, out);
    }
    if let Some(id) = tlvs.azure_link_id {
        put(AZURE, &[&[AZURE_LINK_ID], &id.to_le_bytes()], start, out);
    }
}

fn put(kind: u8, parts: &[&[u8]], start: usize, out: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    if out.len() - start + ENTRY + length > V2_MAX {
        return;
    }
    out.push(kind);
    // Below V2_MAX, so it fits.
    out.extend_from_slice(&(length as u16).to_be_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Set the checksum, which `write` put first after the addresses of the header that begins at `start`.
pub(super) fn seal(start: usize, out: &mut [u8]) {
    let addresses = match out[start + 13] >> 4 {
        1 => 12,
        2 => 36,
        _ => 216,
    };
    let at = start + 16 + addresses + ENTRY;
    let sum = crc32c(&out[start..], usize::MAX);
    out[at..at + 4].copy_from_slice(&sum.to_be_bytes());
}

/// Whether `value`, the checksum at `at` of `header`, is right.
fn verify(header: &[u8], at: usize, value: &[u8]) -> Result<(), Malformed> {
    let value: [u8; 4] = value.try_into().map_err(|_| Malformed::Tlv)?;
    if crc32c(header, at) == u32::from_be_bytes(value) { Ok(()) } else { Err(Malformed::Checksum) }
}

/// CRC32C (RFC 3720 appendix B.4) of `bytes`, with the four at `zeros` taken as 0.
fn crc32c(bytes: &[u8], zeros: usize) -> u32 {
    let sum = bytes.iter().enumerate().fold(u32::MAX, |sum, (at, byte)| {
        let byte = if (zeros..zeros.saturating_add(4)).contains(&at) { 0 } else { *byte };
        (sum >> 8) ^ CRC_TABLE[usize::from(sum as u8 ^ byte)]
    });
    !sum
}

/// Remainders of every byte for the reversed polynomial.
const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < table.len() {
        let mut remainder = index as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = if remainder & 1 == 1 { (remainder >> 1) ^ 0x82F6_3B78 } else { remainder >> 1 };
            bit += 1;
        }
        table[index] = remainder;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c(&[0; 32], usize::MAX), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32], usize::MAX), 0x62A8_AB43);
        assert_eq!(crc32c(b"123456789", usize::MAX), 0xE306_9283);
    }
}
