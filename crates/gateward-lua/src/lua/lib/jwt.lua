-- resty.jwt: https://github.com/cdbattags/lua-resty-jwt
-- A signature is looked at before any claim; a key serves only the algorithms that are made for its kind.
local core = ...
local host, require = core.host, core.env.require

-- Longest token: what is read, decoded and signed for one request.
local LONGEST = 1048576
-- Longest text of a validator that is told.
local LONGEST_REASON = 500
local FINE = "everything is awesome~ :p"

local algorithms = {
  HS256 = { hmac = "sha256" }, HS384 = { hmac = "sha384" }, HS512 = { hmac = "sha512" },
  RS256 = { kind = "RSA", digest = "sha256", scheme = "pkcs1" }, RS384 = { kind = "RSA", digest = "sha384", scheme = "pkcs1" },
  RS512 = { kind = "RSA", digest = "sha512", scheme = "pkcs1" }, PS256 = { kind = "RSA", digest = "sha256", scheme = "pss" },
  PS384 = { kind = "RSA", digest = "sha384", scheme = "pss" }, PS512 = { kind = "RSA", digest = "sha512", scheme = "pss" },
  ES256 = { kind = "P-256", digest = "sha256", scheme = "raw" }, ES384 = { kind = "P-384", digest = "sha384", scheme = "raw" },
  ES512 = { kind = "P-521", digest = "sha512", scheme = "raw" },
  EdDSA = { kind = "Ed25519", digest = "", scheme = "whole" }, Ed25519 = { kind = "Ed25519", digest = "", scheme = "whole" },
}

local jwt = { _VERSION = "0.3.2" }

local function failed(reason) error({ reason = reason }, 0) end

-- What a failure says, whatever raised it.
local function reason_of(raised, otherwise)
  return type(raised) == "table" and raised.reason or otherwise
end

-- What of a text a client may have had a hand in is told: on one line, and so much of it.
local function shown(text, most)
  text = #text > most and text:sub(1, most) .. ".." or text
  return (text:gsub("[%c\127-\255]", function(byte) return ("\\x%02x"):format(byte:byte()) end))
end
local function quoted(value) return shown(tostring(value), 60) end

-- Parts -------------------------------------------------------------------------------------------------------------------

function jwt:jwt_encode(part)
  if type(part) == "table" then part = core.encode(part) end
  return (host.encode_base64(part):gsub("+", "-"):gsub("/", "_"):gsub("=", ""))
end

function jwt:jwt_decode(text, as_json)
  if type(text) ~= "string" or text:find("[^%w%-_]") then return nil end
  local bytes = host.decode_base64((text:gsub("-", "+"):gsub("_", "/")))
  if not bytes or not as_json then return bytes end
  return (core.decode(bytes))
end

-- Functions of the plugin that write and read payloads in another form than JSON.
function jwt:set_payload_encoder(encoder)
  if type(encoder) ~= "function" then error({ reason = "payload encoder must be function" }) end
  self.payload_encoder = encoder
end
function jwt:set_payload_decoder(decoder)
  if type(decoder) ~= "function" then error({ reason = "payload decoder must be function" }) end
  self.payload_decoder = decoder
end

function jwt:set_alg_whitelist(algs) self.alg_whitelist = algs end

local function elsewhere()
  error("certificates in tokens (x5c, x5u) are not followed on this gateway; give jwt:verify the key or certificate", 2)
end
jwt.set_trusted_certs_file, jwt.set_x5u_content_retriever = elsewhere, elsewhere

local function raw_part(self, token, name)
  local raw = token["raw_" .. name]
  if raw then return raw end
  local part = token[name]
  if part == nil then failed("missing part " .. name) end
  if name == "payload" and type(part) == "table" and self.payload_encoder then part = self.payload_encoder(part) end
  return self:jwt_encode(part)
end

local function signed_text(self, token)
  return raw_part(self, token, "header") .. "." .. raw_part(self, token, "payload")
end

-- Keys --------------------------------------------------------------------------------------------------------------------

local function secret_of(secret, token, alg)
  if type(secret) == "function" then
    local kid = token.header.kid
    if kid == nil then failed("secret function specified without kid in header") end
    if type(kid) ~= "string" then failed("secret function specified with non-string kid in header") end
    secret = secret(kid)
    if secret == nil then failed("function returned nil for kid: " .. quoted(kid)) end
  end
  if type(secret) ~= "string" then failed("invalid secret type (must be string or function)") end
  -- Everybody has a public key, and could sign with it.
  if secret:find("-----BEGIN", 1, true) or (secret:find("^%s*[0{]") and host.key_read(secret, "*")) then
    failed("invalid secret for " .. alg .. ": it is a key of a pair, and no secret")
  end
  return secret
end

-- Keys that were read, by digests of their texts: plugins verify with the same few again and again.
local KEPT = 64
local kept, count = {}, 0

local function read_key(text)
  local digest = host.digest("sha256", text)
  if kept[digest] then return kept[digest] end
  local key, err = host.key_read(text, "*")
  if not key then return nil, err end
  -- All are read anew from time to time: keys of an identity provider change.
  if count >= KEPT then kept, count = {}, 0 end
  kept[digest], count = key, count + 1
  return key
end

local function key_of(secret, alg, private)
  if type(secret) == "function" then failed("secret function can only be used with hmac alg: " .. alg) end
  if type(secret) ~= "string" then failed("invalid secret type (must be string or function)") end
  local key, err = read_key(secret)
  if not key then failed((private and "signer error: " or "Decode secret is not a valid cert/public key: ") .. err) end
  local wanted, kind, is_private = algorithms[alg].kind, host.key_about(key)
  if kind ~= wanted then failed("key type mismatch: alg " .. alg .. " requires a key of " .. wanted) end
  if private and not is_private then failed("signer error: the key is a public one") end
  return key
end

-- Signing -----------------------------------------------------------------------------------------------------------------

function jwt:sign(secret, token)
  local header = token.header
  if type(header) ~= "table" then failed("missing part header") end
  if header.typ ~= nil and header.typ ~= "JWT" then failed("invalid typ: " .. quoted(header.typ)) end
  if header.enc ~= nil then failed("encrypted tokens (JWE) are not there on this gateway") end
  local how = type(header.alg) == "string" and algorithms[header.alg]
  if not how then failed("unsupported alg: " .. quoted(header.alg)) end
  local text = signed_text(self, token)
  local signature, err
  if how.hmac then
    signature = host.hmac(how.hmac, secret_of(secret, token, header.alg), text)
  else
    signature, err = host.key_sign(key_of(secret, header.alg, true), text, how.digest, how.scheme)
    if not signature then failed("signer error: " .. err) end
  end
  return text .. "." .. self:jwt_encode(signature)
end

-- Verifying ---------------------------------------------------------------------------------------------------------------

local function parse(self, text)
  if type(text) ~= "string" then failed("invalid jwt string") end
  if #text > LONGEST then failed("the token has more than " .. LONGEST .. " bytes") end
  local raw_header, raw_payload, signature = text:match("^([^.]+)%.([^.]+)%.([^.]*)$")
  if not raw_header then
    failed(select(2, text:gsub("%.", "")) == 4 and "encrypted tokens (JWE) are not there on this gateway" or "invalid jwt string")
  end
  local header = self:jwt_decode(raw_header, true)
  if type(header) ~= "table" then failed("invalid header: " .. quoted(raw_header)) end
  local payload = self:jwt_decode(raw_payload)
  if payload and self.payload_decoder then
    payload = self.payload_decoder(payload)
  elseif payload then
    payload = core.decode(payload)
  end
  if payload == nil then failed("invalid payload: " .. quoted(raw_payload)) end
  return {
    raw_header = raw_header, raw_payload = raw_payload, signature = signature, header = header, payload = payload,
  }
end

function jwt:load_jwt(text)
  local fine, token = pcall(parse, self, text)
  if not fine then return { valid = false, verified = false, reason = reason_of(token, "invalid jwt string") } end
  token.valid, token.verified = true, false
  return token
end

local function check_signature(self, secret, token, alg)
  local how = algorithms[alg]
  local text, encoded = signed_text(self, token), token.signature
  if how.hmac then
    local expected = self:jwt_encode(host.hmac(how.hmac, secret_of(secret, token, alg), text))
    if type(encoded) ~= "string" or not host.same_bytes(encoded, expected) then
      failed("signature mismatch: " .. quoted(encoded))
    end
    return
  end
  if secret == nil then failed("No trusted certs loaded") end
  local key = key_of(secret, alg)
  local signature = self:jwt_decode(encoded)
  if not signature then failed("Wrongly encoded signature") end
  local right, err = host.key_verify(key, signature, text, how.digest, how.scheme)
  if not right then failed(err or "signature verification failed") end
end

-- Options of before there were validators.
local legacy = { valid_issuers = true, lifetime_grace_period = true, require_nbf_claim = true, require_exp_claim = true }

local function from_legacy(options)
  local validators, spec = require "resty.jwt-validators", {}
  local need_nbf, need_exp = options.require_nbf_claim, options.require_exp_claim
  for name, value in pairs { require_nbf_claim = need_nbf, require_exp_claim = need_exp } do
    if type(value) ~= "boolean" then error("'" .. name .. "' validation option is expected to be a boolean.", 0) end
  end
  if options.valid_issuers ~= nil then spec.iss = validators.equals_any_of(options.valid_issuers) end
  local grace = options.lifetime_grace_period
  if grace ~= nil and not need_nbf and not need_exp then spec.__jwt = validators.require_one_of { "nbf", "exp" } end
  if grace == nil and need_nbf == nil and need_exp == nil then return spec end
  local leeway = { leeway = grace }
  spec.nbf = (need_nbf and validators.is_not_before or validators.opt_is_not_before)(leeway)
  spec.exp = (need_exp and validators.is_not_expired or validators.opt_is_not_expired)(leeway)
  return spec
end

function jwt:get_default_validation_options()
  local validators = require "resty.jwt-validators"
  return { nbf = validators.opt_is_not_before(), exp = validators.opt_is_not_expired() }
end

-- Specs of claims as functions by claim. What is wrong with one is the plugin's error, whatever the token.
local function prepared(self, ...)
  local specs, last = { ... }, select("#", ...)
  while last > 0 and specs[last] == nil do last = last - 1 end
  if last == 0 then specs[1], last = self:get_default_validation_options(), 1 end
  -- One that is missing in between is no reason to look at none.
  for i = 1, last do
    local spec = specs[i]
    if type(spec) ~= "table" then error("Claim spec must be a table - see jwt-validators.lua for helper functions", 0) end
    local old = next(spec) ~= nil
    for name in pairs(spec) do old = old and legacy[name] end
    if old then
      spec = from_legacy(spec)
      specs[i] = spec
    end
    for _, validator in pairs(spec) do
      if type(validator) ~= "function" then
        error("Claim spec value must be a function - see jwt-validators.lua for helper functions", 0)
      end
    end
  end
  return specs
end

local function check_claims(token, specs)
  local json, payload = core.encode(token), token.payload
  for _, spec in ipairs(specs) do
    for claim, validator in pairs(spec) do
      local value
      if claim == "__jwt" then
        value = core.decode(json)
      elseif type(payload) == "table" then
        value = payload[claim]
      end
      local fine, result = pcall(validator, value, claim, json)
      if not fine then
        local text = type(result) == "string" and result:gsub("^.-:%d-: ", "")
        text = text or reason_of(result, "Claim '" .. tostring(claim) .. "' validation failed")
        -- Validators of plugins say what they like of what a client sent.
        failed(type(text) == "string" and shown(text, LONGEST_REASON) or text)
      elseif result == false then
        failed("Claim '" .. tostring(claim) .. "' ('" .. quoted(value) .. "') returned failure")
      end
    end
  end
end

local function check(self, secret, token, specs)
  local header = token.header
  local alg = type(header) == "table" and header.alg
  if alg == nil then failed("No algorithm supplied") end
  if type(alg) ~= "string" then failed("invalid alg: must be a string") end
  if self.alg_whitelist and not self.alg_whitelist[alg] then failed("whitelist unsupported alg: " .. quoted(alg)) end
  if not algorithms[alg] then failed("Unsupported algorithm " .. quoted(alg)) end
  if header.crit ~= nil then failed("unsupported critical header parameters (crit)") end
  check_signature(self, secret, token, alg)
  check_claims(token, specs)
end

function jwt:verify_jwt_obj(secret, token, ...)
  local specs = prepared(self, ...)
  token.verified = false
  if not token.valid then return token end
  local fine, raised = pcall(check, self, secret, token, specs)
  token.verified, token.reason = fine, fine and FINE or reason_of(raised, "internal error")
  return token
end

function jwt:verify(secret, text, ...)
  return self:verify_jwt_obj(secret, self:load_jwt(text), ...)
end

return jwt
