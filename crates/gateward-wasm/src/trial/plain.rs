//! A stream made of vectors: what filters are tried on outside of a gateway.

use crate::stream::{Edit, Stream};
use crate::types::{DataBuffer, FieldMap};

/// A stream made of vectors. Maps and bodies that are `None` are not there.
#[derive(Debug, Default)]
pub(crate) struct Plain {
    pub(crate) request_headers: Vec<(String, Vec<u8>)>,
    pub(crate) request_trailers: Option<Vec<(String, Vec<u8>)>>,
    pub(crate) response_headers: Option<Vec<(String, Vec<u8>)>>,
    pub(crate) response_trailers: Option<Vec<(String, Vec<u8>)>>,
    pub(crate) request_body: Option<Vec<u8>>,
    pub(crate) response_body: Option<Vec<u8>>,
    pub(crate) read_only: bool,
    pub(crate) too_late: bool,
    pub(crate) route_cleared: bool,
}

impl Plain {
    /// A request with these headers.
    #[cfg(test)]
    pub(crate) fn request(fields: &[(&str, &str)]) -> Self {
        let own = fields.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
        Self { request_headers: own.collect(), ..Self::default() }
    }

    fn map(&self, map: FieldMap) -> Option<&Vec<(String, Vec<u8>)>> {
        match map {
            FieldMap::RequestHeaders => Some(&self.request_headers),
            FieldMap::RequestTrailers => self.request_trailers.as_ref(),
            FieldMap::ResponseHeaders => self.response_headers.as_ref(),
            FieldMap::ResponseTrailers => self.response_trailers.as_ref(),
        }
    }

    fn change(
        &mut self,
        map: FieldMap,
        name: &[u8],
        value: &[u8],
        change: impl FnOnce(&mut Vec<(String, Vec<u8>)>, String),
    ) -> Edit {
        let name = match str::from_utf8(name) {
            Ok(name) if !name.contains(['\r', '\n']) && !value.contains(&b'\n') => name.to_owned(),
            _ => return Edit::Refused,
        };
        let map = match map {
            _ if self.read_only => None,
            FieldMap::RequestHeaders => Some(&mut self.request_headers),
            FieldMap::RequestTrailers => self.request_trailers.as_mut(),
            FieldMap::ResponseHeaders => self.response_headers.as_mut(),
            FieldMap::ResponseTrailers => self.response_trailers.as_mut(),
        };
        let Some(map) = map else { return Edit::NotNow };
        change(map, name);
        Edit::Done
    }
}

impl Stream for Plain {
    fn each_field(&self, map: FieldMap, show: &mut dyn FnMut(&[u8], &[u8])) -> bool {
        for (name, value) in self.map(map).into_iter().flatten() {
            show(name.as_bytes(), value);
        }
        self.map(map).is_some()
    }

    fn field(&self, map: FieldMap, name: &[u8], out: &mut Vec<u8>) -> bool {
        let all = self.map(map).into_iter().flatten();
        let values = all.filter(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name)).map(|(_, value)| &value[..]);
        let values: Vec<_> = values.collect();
        out.extend_from_slice(&values.join(&b", "[..]));
        !values.is_empty()
    }

    fn add_field(&mut self, map: FieldMap, name: &[u8], value: &[u8]) -> Edit {
        self.change(map, name, value, |map, name| map.push((name, value.to_vec())))
    }

    fn replace_field(&mut self, map: FieldMap, name: &[u8], value: &[u8]) -> Edit {
        self.change(map, name, value, |map, name| {
            map.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
            map.push((name, value.to_vec()));
        })
    }

    fn remove_field(&mut self, map: FieldMap, name: &[u8]) -> Edit {
        self.change(map, name, b"", |map, name| map.retain(|(known, _)| !known.eq_ignore_ascii_case(&name)))
    }

    fn clear_fields(&mut self, map: FieldMap) -> Edit {
        self.change(map, b"", b"", |map, _| map.retain(|(name, _)| name.starts_with(':')))
    }

    fn data(&self, buffer: DataBuffer) -> Option<&[u8]> {
        match buffer {
            DataBuffer::RequestBody => self.request_body.as_deref(),
            DataBuffer::ResponseBody => self.response_body.as_deref(),
            DataBuffer::Downstream | DataBuffer::Upstream => None,
        }
    }

    fn data_mut(&mut self, buffer: DataBuffer) -> Option<&mut Vec<u8>> {
        match buffer {
            DataBuffer::RequestBody => self.request_body.as_mut(),
            DataBuffer::ResponseBody => self.response_body.as_mut(),
            DataBuffer::Downstream | DataBuffer::Upstream => None,
        }
    }

    fn property(&self, path: &[&str], out: &mut Vec<u8>) -> bool {
        match path {
            ["request", "size"] => out.extend_from_slice(&7_i64.to_le_bytes()),
            ["request", "id"] => out.extend_from_slice(b"42"),
            _ => return false,
        }
        true
    }

    fn can_respond(&self) -> bool {
        !self.too_late
    }

    fn clear_route_cache(&mut self) {
        self.route_cleared = true;
    }
}
