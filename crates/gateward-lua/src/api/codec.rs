//! Base64, checksums and dates as `ngx` has them.

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use mlua::{Lua, LuaString, Result, Table};

/// Takes texts with and without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let encode = lua.create_function(|_, text: LuaString| Ok(BASE64.encode(text.as_bytes())))?;
    functions.raw_set("encode_base64", encode)?;
    let decode = lua.create_function(|lua, text: LuaString| {
        BASE64.decode(text.as_bytes()).ok().map(|bytes| lua.create_string(bytes)).transpose()
    })?;
    functions.raw_set("decode_base64", decode)?;
    functions.raw_set("crc32", lua.create_function(|_, text: LuaString| Ok(crc32(&text.as_bytes())))?)
}

/// The checksum of ISO 3309, as zlib computes it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_zlibs() {
        assert_eq!((crc32(b""), crc32(b"123456789")), (0, 0xcbf4_3926));
    }
}
