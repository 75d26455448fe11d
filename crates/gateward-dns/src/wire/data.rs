//! A record's data out of a message: pointers resolved, its form checked against its type.

use domain::base::ParsedName;
use domain::base::rdata::{ComposeRecordData, ParseAnyRecordData};
use domain::dep::octseq::Parser;
use domain::rdata::AllRecordData;
use gateward_zone::Rdata;

use super::WireError;
use super::read::RawRecord;

impl RawRecord {
    /// The data in uncompressed wire format.
    ///
    /// # Errors
    /// [`WireError::Data`] when it does not have the form its type asks for.
    pub fn rdata(&self, message: &[u8]) -> Result<Rdata, WireError> {
        self.uncompressed(message).ok_or(WireError::Data(self.rtype)).map(Rdata::from_wire)
    }

    fn uncompressed(&self, message: &[u8]) -> Option<Vec<u8>> {
        let mut parser = Parser::from_ref(message);
        parser.advance(self.data.start).ok()?;
        let mut parser = parser.parse_parser(self.data.len()).ok()?;
        let data = AllRecordData::<&[u8], ParsedName<&[u8]>>::parse_any_rdata(self.rtype, &mut parser).ok()?;
        if parser.remaining() != 0 {
            return None;
        }
        let mut octets = Vec::with_capacity(self.data.len());
        data.compose_rdata(&mut octets).ok()?;
        // The library takes some types as they are whose form we know.
        gateward_zone::rdata::check(self.rtype, &octets).ok()?;
        Some(octets)
    }
}
