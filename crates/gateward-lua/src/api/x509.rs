//! `x509(bytes, format)`: a certificate in DER, or nothing and why not; `x509_field(der, name)`: what it says; `pem(label, der)`:
//! a text.

use crate::crypto::pem;
use mlua::{BString, Lua, LuaString, Result, Table, Value};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

pub(super) fn add(lua: &Lua, functions: &Table) -> Result<()> {
    let parse = lua.create_function(|_, (bytes, format): (LuaString, String)| {
        Ok(match parse(&bytes.as_bytes(), &format) {
            Ok(der) => (Some(BString::from(der)), None),
            Err(error) => (None, Some(error)),
        })
    })?;
    functions.raw_set("x509", parse)?;
    let field = lua.create_function(|lua, (der, name): (LuaString, LuaString)| {
        let der = der.as_bytes();
        let Ok((_, certificate)) = X509Certificate::from_der(&der) else { return Ok(Value::Nil) };
        field(lua, &certificate, &name.as_bytes())
    })?;
    functions.raw_set("x509_field", field)?;
    let pem = lua.create_function(|_, (label, der): (String, LuaString)| Ok(pem::write(&label, &der.as_bytes())))?;
    functions.raw_set("pem", pem)
}

/// The first certificate of `bytes`, in DER.
fn parse(bytes: &[u8], format: &str) -> std::result::Result<Vec<u8>, String> {
    let from_pem = || {
        let blocks = pem::read(bytes).map_err(|why| format!("no PEM certificate: {why}"))?;
        let found = blocks.into_iter().find(|(label, _)| label == "CERTIFICATE");
        found.map(|(_, der)| der).ok_or_else(|| "no PEM certificate".to_owned())
    };
    let der = match format {
        "PEM" => from_pem()?,
        "DER" => bytes.to_vec(),
        _ => from_pem().unwrap_or_else(|_| bytes.to_vec()),
    };
    match X509Certificate::from_der(&der) {
        Ok(([], _)) => Ok(der),
        Ok(_) => Err("more than a certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn field(lua: &Lua, certificate: &X509Certificate<'_>, name: &[u8]) -> Result<Value> {
    let validity = certificate.validity();
    Ok(match name {
        b"subject" => Value::Table(attributes(lua, certificate.subject())?),
        b"issuer" => Value::Table(attributes(lua, certificate.issuer())?),
        b"not_before" => Value::Number(validity.not_before.timestamp() as f64),
        b"not_after" => Value::Number(validity.not_after.timestamp() as f64),
        b"serial" => Value::String(lua.create_string(certificate.raw_serial())?),
        b"public_key" => Value::String(lua.create_string(certificate.public_key().raw)?),
        b"version" => Value::Number(f64::from(certificate.version().0) + 1.0),
        _ => Value::Nil,
    })
}

/// The parts of a name in their order: short name, OID and text of each.
fn attributes(lua: &Lua, name: &X509Name<'_>) -> Result<Table> {
    let registry = x509_parser::objects::oid_registry();
    let list = lua.create_table()?;
    for attribute in name.iter_attributes() {
        let oid = attribute.attr_type();
        let part = lua.create_table()?;
        part.raw_set("id", oid.to_id_string())?;
        part.raw_set("sn", x509_parser::objects::oid2abbrev(oid, registry).ok())?;
        part.raw_set("ln", registry.get(oid).map(|entry| entry.sn()))?;
        part.raw_set("blob", lua.create_string(attribute.as_slice())?)?;
        list.raw_push(part)?;
    }
    Ok(list)
}
