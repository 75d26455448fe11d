local jwt, validators = require "resty.jwt", require "resty.jwt-validators"
local FINE = "everything is awesome~ :p"
local public = { RS = keys.rsa_public, PS = keys.certificate, ES256 = keys.p256_public, ES384 = keys.p384_public,
  ES512 = keys.p521_public, EdDSA = keys.ed25519_public }
local private = { RS = keys.rsa, PS = keys.rsa_pkcs1, ES256 = keys.p256_sec1, ES384 = keys.p384, ES512 = keys.p521,
  EdDSA = keys.ed25519 }
local all = { "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA" }
local function of(set, alg) return set[alg] or set[alg:sub(1, 2)] or "a shared secret" end
local function reason(words, object)
  assert(object.verified == false and object.reason:find(words, 1, true), tostring(object.reason))
end
local function raises(words, ...)
  local fine, err = pcall(...)
  err = type(err) == "table" and err.reason or err
  assert(not fine and tostring(err):find(words, 1, true), tostring(err))
end

rest()
-- Every algorithm with its key, and no other's.
for _, alg in ipairs(all) do
  rest()
  local token = jwt:sign(of(private, alg), { header = { typ = "JWT", alg = alg }, payload = { sub = "alice", n = 5 } })
  local read = jwt:verify(of(public, alg), token)
  assert(read.verified and read.valid and read.reason == FINE, alg .. ": " .. tostring(read.reason))
  assert(read.header.alg == alg and read.payload.sub == "alice" and read.raw_header .. "." .. read.raw_payload .. "." .. read.signature == token)
  rest()
  local head, body, signature = token:match("(.-)%.(.-)%.(.*)")
  assert(not jwt:verify(of(public, alg), head .. "." .. body .. "x." .. signature).verified)
  assert(not jwt:verify(of(public, alg), head .. "." .. jwt:jwt_encode { sub = "mallory" } .. "." .. signature).verified)
  assert(not jwt:verify(of(public, alg), head .. "." .. body .. ".").verified)
  assert(not jwt:verify(of(public, alg), head .. "." .. body .. "." .. signature:sub(2)).verified)
  assert(not jwt:verify(of(public, alg), head .. "." .. body .. "." .. ("A"):rep(#signature)).verified)
  for _, other in ipairs(all) do
    rest()
    if of(public, other) ~= of(public, alg) and not (alg:find("[RP]S") and other:find("[RP]S")) then
      assert(not jwt:verify(of(public, other), token).verified, alg .. " with the key of " .. other)
      -- The same text under another algorithm's name.
      local renamed = jwt:jwt_encode { typ = "JWT", alg = other } .. "." .. body .. "." .. signature
      assert(not jwt:verify(of(public, alg), renamed).verified)
    end
  end
end

rest()
-- RFC 7515 A.1 and A.3, long expired.
local payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
local secret = jwt:jwt_decode "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
local hs = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." .. payload .. ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
assert(jwt:verify(secret, hs, {}).verified)
reason("'exp' claim expired at Tue, 22 Mar 2011 18:43:00 GMT", jwt:verify(secret, hs))
local es = "eyJhbGciOiJFUzI1NiJ9." .. payload
  .. ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
local jwk = '{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",'
  .. '"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}'
local read = jwt:verify(jwk, es, { iss = validators.equals("joe") })
assert(read.verified and read.payload["http://example.com/is_root"] == true, read.reason)

rest()
-- A public key is no secret, in whichever form; no algorithm is none.
for _, pem in ipairs { keys.rsa_public, keys.certificate, keys.rsa, jwk, require("resty.openssl.pkey").new(keys.rsa):tostring("public", "DER") } do
  rest()
  reason("no secret", jwt:verify(pem, hs, {}))
  raises("no secret", jwt.sign, jwt, pem, { header = { alg = "HS256" }, payload = {} })
end
for _, alg in ipairs { "none", "None", "HS1", "" } do
  rest()
  reason("Unsupported algorithm", jwt:verify("s", jwt:jwt_encode { alg = alg } .. "." .. payload .. "."))
  raises("unsupported alg", jwt.sign, jwt, "s", { header = { alg = alg }, payload = {} })
end
reason("No algorithm", jwt:verify("s", jwt:jwt_encode { typ = "JWT" } .. "." .. payload .. ".x"))
reason("must be a string", jwt:verify("s", jwt:jwt_encode { alg = { "HS256" } } .. "." .. payload .. ".x"))
reason("crit", jwt:verify("s", jwt:sign("s", { header = { alg = "HS256", crit = { "b64" } }, payload = {} })))
reason("No trusted certs", jwt:verify(nil, es))
reason("not a valid cert", jwt:verify("a word", es))
reason("invalid secret type", jwt:verify(nil, hs, {}))
raises("public one", jwt.sign, jwt, keys.rsa_public, { header = { alg = "RS256" }, payload = {} })
raises("invalid typ", jwt.sign, jwt, "s", { header = { alg = "HS256", typ = "X" }, payload = {} })
raises("missing part payload", jwt.sign, jwt, "s", { header = { alg = "HS256" } })

rest()
-- Texts that are no tokens.
for text, words in pairs {
  [""] = "invalid jwt string", ["a.b"] = "invalid jwt string", ["!.!.x"] = "invalid header", ["e30.!.x"] = "invalid payload",
  ["e30.e30=.x"] = "invalid payload", ["a.b.c.d.e"] = "JWE", ["a.b.c.d"] = "invalid jwt string", [("x"):rep(1048577)] = "more than",
} do
  local object = jwt:load_jwt(text)
  assert(object.valid == false)
  reason(words, object)
  reason(words, jwt:verify("s", text))
end
reason("invalid jwt string", jwt:verify("s", nil))

rest()
-- Secrets by the id of a key.
local by_kid = function(kid) return kid == "one" and "s" or nil end
local function with_kid(kid) return jwt:sign("s", { header = { alg = "HS256", kid = kid }, payload = {} }) end
assert(jwt:verify(by_kid, with_kid "one").verified)
reason("nil for kid: two", jwt:verify(by_kid, with_kid "two"))
reason("without kid", jwt:verify(by_kid, with_kid(nil)))
reason("only be used with hmac", jwt:verify(by_kid, es))

rest()
-- Claims.
local now = ngx.now()
local function claims(payload, ...)
  return jwt:verify("s", jwt:sign("s", { header = { alg = "HS256" }, payload = payload }), ...)
end
assert(claims({ exp = now + 60, nbf = now - 60 }).verified)
reason("'exp' claim expired", claims { exp = now - 5 })
reason("'nbf' claim not valid until", claims { nbf = now + 60 })
reason("'exp' is malformed", claims { exp = "tomorrow" })
local spec = { exp = validators.is_not_expired { leeway = 30 }, nbf = validators.opt_is_not_before { leeway = 30 } }
assert(claims({ exp = now - 5, nbf = now + 5 }, spec).verified)
reason("'exp' claim is required", claims({}, spec))
reason("'exp' claim expired", claims({ exp = now - 60 }, spec))
assert(claims({ iat = now }, { iat = validators.is_at { leeway = 30 } }).verified)
reason("only valid at", claims({ iat = now - 60 }, { iat = validators.is_at { leeway = 30 } }))
reason("Claim 'iss' ('b') returned failure", claims({ iss = "b" }, { iss = validators.equals "a" }))
assert(claims({ iss = "b", aud = { "x", "y" } }, { iss = validators.equals_any_of { "a", "b" }, aud = validators.contains_any_of { "y" } }).verified)
assert(claims({ n = 5 }, { n = validators.chain(validators.greater_than(4), validators.less_than_or_equal(5)) }).verified)
assert(claims({}, { n = validators.opt_matches "^%d+$" }).verified)
reason("returned failure", claims({ n = "x" }, { n = validators.opt_matches "^%d+$" }))
reason("Missing one of claims - [ a, b ]", claims({ c = 1 }, { __jwt = validators.require_one_of { "a", "b" } }))
assert(claims({ sub = "x" }, { __jwt = function(token) return token.payload.sub == "x" end }).verified)
rest()
reason("my words", claims({}, { sub = function() error("my words") end }))
reason("my words", claims({}, { sub = function() error { reason = "my words" } end }))
reason("Missing one of", claims({}, { lifetime_grace_period = 30 }))
assert(claims({ exp = now - 5, iss = "a" }, { lifetime_grace_period = 30, valid_issuers = { "a" } }).verified)
reason("'nbf' claim is required", claims({ exp = now + 5 }, { require_nbf_claim = true }))
raises("must be a function", claims, {}, { sub = "x" })
raises("must be a table", claims, {}, "x")
raises("Cannot create validator for nil", validators.equals)
rest()
-- What is missing is an error of the plugin's, and no reason to look at nothing.
assert(claims({ exp = now + 60 }, nil).verified)
reason("'exp' claim expired", claims({ exp = now - 5 }, nil))
raises("must be a table", claims, { sub = "x" }, nil, { sub = validators.equals "y" })
raises("must be a table", claims, { sub = "x" }, { sub = validators.equals "x" }, nil, {})
for _, name in ipairs { "equals", "matches", "any_of", "check", "equals_any_of", "matches_any_of", "contains_any_of", "greater_than",
  "less_than", "require_one_of" } do
  raises("Cannot create validator for", validators[name], nil)
  raises("Cannot create validator for", validators["opt_" .. name] or validators[name])
end
raises("Cannot create validator for", validators.any_of, { "x" }, nil)
raises("Cannot create validator for", validators.chain, 1)
raises("Cannot create validator for", validators.is_at, "x")
raises("leeway must be", validators.set_system_leeway, nil)
raises("clock must be", validators.set_system_clock, nil)
for _, name in ipairs { "sign", "verify", "verify_jwt_obj", "load_jwt", "jwt_encode", "jwt_decode" } do
  for _, own in ipairs { jwt, {} } do pcall(jwt[name], own, nil, nil, nil) end
end
raises("", jwt.sign, jwt, "s", nil)
raises("must be function", jwt.set_payload_encoder, jwt, nil)
for _, time in ipairs { 1e18, 1e300, 253402300800 } do
  reason("'nbf' claim not valid until", claims { nbf = time })
  assert(claims({ exp = time }).verified)
end
rest()
-- What a client sent is told on one line, and not much of it.
local long = "a\nb\27" .. ("x"):rep(10000)
for _, object in ipairs {
  claims({ iss = long }, { iss = validators.equals "a" }),
  claims({ iss = long }, { iss = function(value) error("not " .. value, 0) end }),
  claims({ iss = long }, { iss = function(value) error { reason = "not " .. value } end }),
  jwt:verify("s", jwt:jwt_encode { alg = long } .. "." .. payload .. ".x"),
  jwt:verify("s", "e30.e30." .. long), jwt:verify("s", long .. ".e30.x"), jwt:verify("s", "e30." .. long .. ".x"),
  jwt:verify(function() end, jwt:sign("s", { header = { alg = "HS256", kid = long }, payload = {} })),
} do
  rest()
  local told = object.reason
  assert(object.verified == false and #told < 700 and not told:find("%c"), told)
end
raises("non-negative", validators.is_at, { leeway = -1 })
-- The signature comes first: what a claim holds is not told of a forged token.
reason("signature mismatch", jwt:verify("other", jwt:sign("s", { header = { alg = "HS256" }, payload = { exp = 1 } })))

jwt:set_alg_whitelist { RS256 = 1 }
reason("whitelist unsupported alg: HS256", claims {})
jwt:set_alg_whitelist(nil)
assert(claims({}).verified)
raises("give jwt:verify the key", jwt.set_trusted_certs_file, jwt, "/etc/ssl")
