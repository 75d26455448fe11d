//! What a module says of itself in its custom sections.
//!
//! Sections of text named as the annotations of an OCI image are what `wasm-tools metadata` and `cargo component` write:
//! `version` is read here. `producers` lists the language and the tools that made the module
//! (<https://github.com/WebAssembly/tool-conventions/blob/main/ProducersSection.md>). Modules that get here were compiled, so
//! their form is right; what is not is taken for absent.

/// Longest text that is taken.
const TEXT_BYTES: usize = 256;

/// Most entries of a list that are taken.
const ENTRIES: u32 = 64;

/// What a module says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct About {
    /// Its version.
    pub(crate) version: Option<String>,
    /// Languages, compilers and SDKs that made it, each with its version.
    pub(crate) built_with: Vec<String>,
}

impl About {
    /// Read the custom sections of a module.
    pub(crate) fn of(wasm: &[u8]) -> Self {
        let mut about = Self::default();
        // Magic number and version.
        let mut rest = Reader(wasm.get(8..).unwrap_or_default());
        while let Some((id, mut section)) = rest.section() {
            if id != 0 {
                continue;
            }
            match section.text() {
                Some("version") => about.version = text(section.0),
                Some("producers") => about.built_with = producers(&mut section).unwrap_or_default(),
                _ => {}
            }
        }
        about
    }
}

/// Bytes as text that can be shown in one line.
fn text(bytes: &[u8]) -> Option<String> {
    let text = str::from_utf8(bytes).ok()?.trim();
    let fits = !text.is_empty() && text.len() <= TEXT_BYTES && !text.chars().any(char::is_control);
    fits.then(|| text.to_owned())
}

/// Names and versions of all fields.
fn producers(section: &mut Reader<'_>) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for _ in 0..section.number()?.min(ENTRIES) {
        section.text()?;
        for _ in 0..section.number()?.min(ENTRIES) {
            let (name, version) = (section.text()?, section.text()?);
            all.extend(text(format!("{name} {version}").as_bytes()));
        }
    }
    Some(all)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next section: its number and what is in it.
    fn section(&mut self) -> Option<(u8, Reader<'a>)> {
        let (id, rest) = self.0.split_first()?;
        self.0 = rest;
        Some((*id, Reader(self.bytes()?)))
    }

    fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }

    /// As many bytes as the number before them says.
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.number()? as usize;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A LEB128 number of 32 bits.
    fn number(&mut self) -> Option<u32> {
        let mut number = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut wasm = wat::parse_str("(module (memory 1))").unwrap();
        for (name, content) in sections {
            let len = (name.len() + 1 + content.len()) as u8;
            wasm.extend([0, len, name.len() as u8]);
            wasm.extend(name.as_bytes());
            wasm.extend(*content);
        }
        wasm
    }

    #[test]
    fn version_and_producers_are_read() {
        let producers = b"\x02\x08language\x01\x04Rust\x042024\x0cprocessed-by\x01\x05rustc\x061.95.0";
        let about = About::of(&module(&[("other", b"x"), ("version", b" 1.2.3\n"), ("producers", producers)]));
        assert_eq!(about.version.as_deref(), Some("1.2.3"));
        assert_eq!(about.built_with, ["Rust 2024", "rustc 1.95.0"]);
    }

    #[test]
    fn what_is_no_text_or_cut_off_is_absent() {
        let long = [b'1'; 120].repeat(3);
        for content in [&b""[..], b"\xff", b"1\n2"] {
            assert_eq!(About::of(&module(&[("version", content)])), About::default(), "{content:?}");
        }
        assert_eq!(text(&long), None);
        assert_eq!(About::of(&module(&[("producers", b"\x02\x08lang")])), About::default());
        assert_eq!(About::of(b"\0asm"), About::default());
        let whole = module(&[("version", b"1")]);
        for end in 0..whole.len() {
            assert_eq!(About::of(&whole[..end]).version, None, "{end}");
        }
    }
}
