-- resty.openssl.{pkey,cipher,kdf}: https://github.com/fffonion/lua-resty-openssl
-- The library behind them signs, encrypts and derives with what is in use today; the rest answers nil and why.
local core, module = ...
local host = core.host

-- Methods of theirs that are not there say so.
local function absent(methods, of, names)
  for name in names:gmatch("%S+") do
    methods[name] = function() return nil, of .. ":" .. name .. " is not there on this gateway" end
  end
end

-- Whether it is a whole number from 1 on, that functions in Rust can take.
local function is_count(value)
  return type(value) == "number" and value >= 1 and value < 2 ^ 31 and value % 1 == 0
end

local function digest_name(name)
  return (tostring(name):lower():gsub("[%-_]", ""))
end

-- pkey --------------------------------------------------------------------------------------------------------------------

local PADDINGS = {
  RSA_PKCS1_PADDING = 1, RSA_SSLV23_PADDING = 2, RSA_NO_PADDING = 3, RSA_PKCS1_OAEP_PADDING = 4, RSA_X931_PADDING = 5,
  RSA_PKCS1_PSS_PADDING = 6,
}
local curves = {
  ["prime256v1"] = "P-256", ["P-256"] = "P-256", ["secp384r1"] = "P-384", ["P-384"] = "P-384", ["secp521r1"] = "P-521",
  ["P-521"] = "P-521",
}
local key_types = {
  RSA = { sn = "rsaEncryption", ln = "rsaEncryption", nid = 6, id = 6 },
  ["P-256"] = { sn = "id-ecPublicKey", ln = "id-ecPublicKey", nid = 408, id = 408 },
  Ed25519 = { sn = "ED25519", ln = "ED25519", nid = 1087, id = 1087 },
}
key_types["P-384"], key_types["P-521"] = key_types["P-256"], key_types["P-256"]
local digest_bytes = { sha256 = 32, sha384 = 48, sha512 = 64 }

local pkey = { PADDINGS = PADDINGS }
for name, number in pairs(PADDINGS) do pkey[name] = number end
local key = {}
key.__index = key
key.__tostring = function(self) return self:to_PEM() end

local function wrap(read, err)
  if not read then return nil, err end
  local kind, private, size = host.key_about(read)
  return setmetatable({ ctx = read, kind = kind, private = private, size = size }, key)
end

local function generate(wanted)
  local kind = tostring(wanted.type or "RSA"):upper()
  if kind == "RSA" then
    if wanted.exp ~= nil and tonumber(wanted.exp) ~= 65537 then return nil, "pkey.new: the exponent of RSA keys is 65537" end
    local bits = wanted.bits == nil and 2048 or tonumber(wanted.bits) or 0
    local made, err = core.beside(host.work_rsa, bits)
    if not made then return nil, "pkey.new: " .. err end
    return wrap(made)
  elseif kind == "EC" then
    local curve = curves[wanted.curve or "prime256v1"]
    if not curve then return nil, "pkey.new: the curves are prime256v1, secp384r1 and secp521r1" end
    return wrap(host.key_make(curve))
  elseif kind == "ED25519" then
    return wrap(host.key_make("Ed25519"))
  end
  return nil, "pkey.new: keys are made of the types RSA, EC and Ed25519"
end

function pkey.new(text, options)
  if text == nil or type(text) == "table" then return generate(text or {}) end
  if type(text) ~= "string" then return nil, "pkey.new: expect nil, a string or a table at #1" end
  options = options or {}
  if options.passphrase or options.passphrase_cb then return nil, "pkey.new: keys are taken without a passphrase" end
  local made, err = wrap(host.key_read(text, options.format or "*"))
  if not made then return nil, "pkey.new: " .. err end
  if options.type == "pr" and not made.private then return nil, "pkey.new: the key is a public one" end
  if options.type == "pu" then made.private = false end
  return made
end

function pkey.istype(value) return getmetatable(value) == key end

function key:is_private() return self.private end
function key:get_size() return self.size end
function key:get_key_type() return key_types[self.kind] end
function key:get_default_digest_type()
  if self.kind == "Ed25519" then return nil, "Ed25519 has its digest in itself" end
  return { sn = "SHA256", ln = "sha256", nid = 672, id = 672 }
end

function key:tostring(half, format)
  local private = half == "private" or half == "PrivateKey"
  if private and not self.private then return nil, "pkey:tostring: the key is a public one" end
  format = format or "PEM"
  if format ~= "PEM" and format ~= "DER" then return nil, "pkey:tostring: keys are written as PEM and DER" end
  return host.key_write(self.ctx, private, format == "PEM")
end
function key:to_PEM(half) return self:tostring(half, "PEM") end

-- The text and the digest's name of what was given to sign or verify: a text, or an object of resty.openssl.digest.
local function signed_text(given, name)
  if type(given) == "table" and given.parts and given.algorithm then
    return table.concat(given.parts), given.algorithm
  elseif type(given) ~= "string" then
    return nil, "expect a string or a digest to sign"
  end
  return given, digest_name(name or "sha256")
end

-- How signatures of this key are made, by name; for verifying PSS there may be two.
local function schemes(self, digest, padding, options, verifying)
  if self.kind == "Ed25519" then return { "whole" } end
  if self.kind ~= "RSA" then return { options.ecdsa_use_raw and "raw" or "der" } end
  if padding == nil or padding == PADDINGS.RSA_PKCS1_PADDING then return { "pkcs1" } end
  if padding ~= PADDINGS.RSA_PKCS1_PSS_PADDING then return nil, "signatures have the paddings PKCS1 and PKCS1_PSS" end
  if options.mgf1_md and digest_name(options.mgf1_md) ~= digest then return nil, "mgf1_md is the digest itself here" end
  local own, salt = digest_bytes[digest], options.pss_saltlen
  local longest = own and self.size - own - 2
  if salt == nil or salt == -2 and verifying then return verifying and { "pss", "pss-max" } or { "pss" } end
  if salt == -1 or salt == own then return { "pss" } end
  if salt == -2 or salt == -3 or salt == longest then return { "pss-max" } end
  return nil, "pss_saltlen is that of the digest (-1) or the longest (-3) here"
end

function key:sign(given, md, padding, options)
  if not self.private then return nil, "pkey:sign: the key is a public one" end
  local text, digest = signed_text(given, md)
  if not text then return nil, "pkey:sign: " .. digest end
  local found, err = schemes(self, digest, padding, options or {})
  if not found then return nil, "pkey:sign: " .. err end
  local signature
  signature, err = host.key_sign(self.ctx, text, digest, found[1])
  if not signature then return nil, "pkey:sign: " .. err end
  return signature
end

function key:verify(signature, given, md, padding, options)
  if type(signature) ~= "string" then return nil, "pkey:verify: expect a string at #1" end
  local text, digest = signed_text(given, md)
  if not text then return nil, "pkey:verify: " .. digest end
  local found, err = schemes(self, digest, padding, options or {}, true)
  if not found then return nil, "pkey:verify: " .. err end
  for _, scheme in ipairs(found) do
    local right
    right, err = host.key_verify(self.ctx, signature, text, digest, scheme)
    if right == nil then return nil, "pkey:verify: " .. err end
    if right then return true end
  end
  return false
end

local function encryption(padding, options)
  if padding == nil or padding == PADDINGS.RSA_PKCS1_PADDING then return "pkcs1" end
  if padding == PADDINGS.RSA_PKCS1_OAEP_PADDING then
    local digest = digest_name(options and options.oaep_md or "sha1")
    if options and options.mgf1_md and digest_name(options.mgf1_md) ~= digest then return "mgf1_md is not oaep_md" end
    return "oaep-" .. digest
  end
  return "another"
end

function key:encrypt(text, padding, options)
  if type(text) ~= "string" then return nil, "pkey:encrypt: expect a string at #1" end
  local made, err = host.key_encrypt(self.ctx, text, encryption(padding, options))
  if not made then return nil, "pkey:encrypt: " .. err end
  return made
end

function key:decrypt(text, padding, options)
  if type(text) ~= "string" then return nil, "pkey:decrypt: expect a string at #1" end
  if not self.private then return nil, "pkey:decrypt: the key is a public one" end
  local made, err = host.key_decrypt(self.ctx, text, encryption(padding, options))
  if not made then return nil, "pkey:decrypt: " .. err end
  return made
end

absent(key, "pkey", [[
  derive get_parameters set_parameters get_property set_property get_provider_name gettable_params settable_params get_param
  set_params sign_raw verify_raw verify_recover sign_raw_recover
]])

-- cipher ------------------------------------------------------------------------------------------------------------------

local cipher = {}
cipher.__index = cipher

local function cipher_new(name)
  if type(name) ~= "string" then return nil, "cipher.new: expect a string at #1" end
  local key_size, iv_size, tag_size = host.cipher_about(name:lower())
  if not key_size then return nil, "cipher.new: invalid cipher type \"" .. name .. "\": AES of 128, 192, 256 bits with cbc, ctr, ecb, gcm" end
  return setmetatable({ name = name:lower(), key_size = key_size, iv_size = iv_size, tag_size = tag_size }, cipher)
end

-- What is encrypted in pieces is put together first: all of it comes with `final`, so that nothing is let out before its tag
-- was looked at.
function cipher:init(own, iv, options)
  self.begun, self.tag = nil, nil
  if self.iv_size == 0 then iv = iv or "" end
  if type(own) ~= "string" or #own ~= self.key_size then
    return false, "cipher:init: incorrect key size, expect " .. self.key_size
  end
  if type(iv) ~= "string" or #iv ~= self.iv_size then
    return false, "cipher:init: incorrect iv size, expect " .. self.iv_size
  end
  options = options or {}
  self.begun = { key = own, iv = iv, encrypt = options.is_encrypt, no_padding = options.no_padding, parts = {}, beside = {} }
  return true
end

-- What was begun, for the method `name` that is given `text`.
local function begun(self, name, text)
  if not self.begun then return nil, "cipher:" .. name .. ": cipher not initialized, call cipher:init first" end
  if text ~= nil and type(text) ~= "string" then return nil, "cipher:" .. name .. ": expect a string at #1" end
  return self.begun
end

-- Likewise one that has a tag.
local function sealing(self, name, text)
  local own, err = begun(self, name, text)
  if own and (text == nil or self.tag_size == 0) then
    return nil, "cipher:" .. name .. ": " .. (text == nil and "expect a string at #1" or self.name .. " has no tag")
  end
  return own, err
end

function cipher:update(...)
  local own, err = begun(self, "update")
  if not own then return nil, err end
  for i = 1, select("#", ...) do
    local part = select(i, ...)
    if type(part) ~= "string" then return nil, "cipher:update: expect a string at #" .. i end
    own.parts[#own.parts + 1] = part
  end
  return ""
end

function cipher:update_aead_aad(beside)
  local own, err = sealing(self, "update_aead_aad", beside)
  if not own then return nil, err end
  own.beside[#own.beside + 1] = beside
  return true
end

function cipher:set_aead_tag(tag)
  local own, err = sealing(self, "set_aead_tag", tag)
  if not own then return nil, err end
  own.tag = tag
  return true
end

function cipher:final(last)
  local own, err = begun(self, "final", last)
  if not own then return nil, err end
  self.begun = nil
  local text, beside = table.concat(own.parts) .. (last or ""), table.concat(own.beside)
  local sealed = self.tag_size > 0
  if sealed and not own.encrypt then
    if not own.tag then return nil, "cipher:final: the tag is missing, which tells whether the text is right" end
    if #own.tag ~= self.tag_size then return nil, "cipher:final: the tag has " .. self.tag_size .. " bytes" end
    text = text .. own.tag
  end
  local made
  made, err = host.cipher_run(own.encrypt and true or false, self.name, own.key, own.iv, text, not own.no_padding, beside)
  if not made then return nil, "cipher:final: " .. err end
  if sealed and own.encrypt then
    self.tag = made:sub(-self.tag_size)
    made = made:sub(1, -self.tag_size - 1)
  end
  return made
end

local function at_once(self, encrypt, own, iv, text, no_padding, beside, tag)
  local fine, err = self:init(own, iv, { is_encrypt = encrypt, no_padding = no_padding })
  if fine and beside ~= nil then fine, err = self:update_aead_aad(beside) end
  if fine and tag ~= nil then fine, err = self:set_aead_tag(tag) end
  if not fine then
    self.begun = nil
    return nil, err
  end
  return self:final(text)
end

function cipher:encrypt(own, iv, text, no_padding, beside)
  return at_once(self, true, own, iv, text, no_padding, beside)
end

function cipher:decrypt(own, iv, text, no_padding, beside, tag)
  return at_once(self, false, own, iv, text, no_padding, beside, tag)
end

function cipher:get_aead_tag(size)
  if not self.tag then return nil, "cipher:get_aead_tag: nothing was encrypted with a tag" end
  size = size or self.tag_size
  if type(size) ~= "number" or size < 1 or size > self.tag_size or size % 1 ~= 0 then
    return nil, "cipher:get_aead_tag: a tag has 1 to " .. self.tag_size .. " bytes"
  end
  return self.tag:sub(1, size)
end

-- A key and a vector from a password, as `openssl enc` makes them.
function cipher:derive(password, salt, rounds, md)
  if type(password) ~= "string" then return nil, "cipher:derive: expect a string at #1" end
  if salt ~= nil and type(salt) ~= "string" then return nil, "cipher:derive: expect a string at #2" end
  if not is_count(rounds or 1) then return nil, "cipher:derive: expect a whole number above 0 at #3" end
  local bytes, err = core.derive_chained(digest_name(md or "sha1"), password, salt or "", rounds or 1, self.key_size + self.iv_size)
  if not bytes then return nil, "cipher:derive: " .. err end
  return bytes:sub(1, self.key_size), bytes:sub(self.key_size + 1)
end

-- kdf ---------------------------------------------------------------------------------------------------------------------

local kdf = {
  PBKDF2 = "PBKDF2", HKDF = "HKDF", SCRYPT = "id-scrypt", TLS1_PRF = "TLS1-PRF",
  HKDEF_MODE_EXTRACT_AND_EXPAND = 0, HKDEF_MODE_EXTRACT_ONLY = 1, HKDEF_MODE_EXPAND_ONLY = 2,
  HKDF_MODE_EXTRACT_AND_EXPAND = 0, HKDF_MODE_EXTRACT_ONLY = 1, HKDF_MODE_EXPAND_ONLY = 2,
}

function kdf.derive(options)
  if type(options) ~= "table" then return nil, "kdf.derive: expect a table at #1" end
  local length, digest = tonumber(options.outlen), digest_name(options.md or "sha1")
  if not is_count(length) then return nil, "kdf.derive: outlen must be a whole number above 0" end
  for _, name in ipairs { "pass", "salt", "hkdf_key", "hkdf_info" } do
    local value = options[name]
    if value ~= nil and type(value) ~= "string" then return nil, "kdf.derive: " .. name .. " must be a string" end
  end
  if not is_count(options.pbkdf2_iter or 1) then return nil, "kdf.derive: pbkdf2_iter must be a whole number above 0" end
  local made, err
  if options.type == kdf.PBKDF2 then
    made, err = core.derive_pbkdf2(digest, options.pass or "", options.salt or "", options.pbkdf2_iter or 1, length)
  elseif options.type == kdf.HKDF then
    local mode = options.hkdf_mode or kdf.HKDF_MODE_EXTRACT_AND_EXPAND
    if mode == kdf.HKDF_MODE_EXTRACT_ONLY then
      made, err = host.hmac(digest, options.salt or "", options.hkdf_key or ""), "HKDF with " .. digest .. " is not there"
    else
      made, err = host.derive_hkdf(digest, options.hkdf_key or "", options.salt or "", options.hkdf_info or "", length,
        mode == kdf.HKDF_MODE_EXPAND_ONLY)
    end
  else
    err = "the type is kdf.PBKDF2 or kdf.HKDF"
  end
  if not made then return nil, "kdf.derive: " .. err end
  return made
end
kdf.derive_legacy = kdf.derive

local modules = {
  ["resty.openssl.pkey"] = pkey,
  ["resty.openssl.cipher"] = { new = cipher_new, istype = function(value) return getmetatable(value) == cipher end },
  ["resty.openssl.kdf"] = kdf,
}
return modules[module]
