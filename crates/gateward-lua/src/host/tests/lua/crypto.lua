local pkey, str = require "resty.openssl.pkey", require "resty.string"
local hex, text = str.to_hex, "what is signed"
local PSS, OAEP = pkey.PADDINGS.RSA_PKCS1_PSS_PADDING, pkey.PADDINGS.RSA_PKCS1_OAEP_PADDING
local key = {}
for name, pem in pairs(keys) do
  rest()
  if name ~= "small" and name ~= "encrypted" then key[name] = assert(pkey.new(pem)) end
end
local function refused(words, value, err)
  assert(value == nil and type(err) == "string" and err:find(words, 1, true), tostring(err))
end

rest()
-- Every form of a key is the same key.
for _, name in ipairs { "rsa", "p256", "p384", "p521", "ed25519" } do
  rest()
  local own = key[name]
  assert(own:is_private() and not key[name .. "_public"]:is_private() and pkey.istype(own) and not pkey.istype {})
  assert(own:to_PEM("private") == keys[name] and own:to_PEM() == keys[name .. "_public"], name)
  assert(pkey.new(own:tostring("private", "DER"), { format = "DER" }):to_PEM("private") == keys[name])
  assert(pkey.new(own:tostring("public", "DER")):to_PEM("public") == keys[name .. "_public"])
  refused("public one", key[name .. "_public"]:to_PEM("private"))
  refused("public one", key[name .. "_public"]:sign(text))
  refused("public one", pkey.new(keys[name .. "_public"], { type = "pr" }))
  assert(not pkey.new(keys[name], { type = "pu" }):is_private())
end
assert(key.rsa_pkcs1:to_PEM("private") == keys.rsa and key.rsa_pkcs1_public:to_PEM() == keys.rsa_public)
assert(key.certificate:to_PEM() == keys.rsa_public)
assert(key.p256_sec1:to_PEM() == keys.p256_public and key.p521_sec1:to_PEM("private") == keys.p521)
assert(key.rsa:get_size() == 256 and key.rsa:get_key_type().sn == "rsaEncryption" and key.p384:get_key_type().id == 408)
refused("2048 to 8192", pkey.new(keys.small))
refused("passphrase", pkey.new(keys.encrypted))
refused("no key", pkey.new("nonsense"))
refused("broken block", pkey.new("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----"))
refused("not a key", pkey.new("\48\3\2\1\1"))
refused("at most", pkey.new(("x"):rep(200000)))
refused("format", pkey.new(keys.rsa, { format = "XML" }))
refused("not there", key.rsa:get_parameters())
refused("not there", key.rsa:sign_raw("x"))

rest()
-- Signatures that OpenSSL made.
local openssl = {
  { "rsa", "rs256", "sha256" }, { "rsa", "rs1", "sha1" }, { "rsa", "ps512", "SHA512", PSS }, { "rsa", "psmax", "sha256", PSS },
  { "p256", "es256", "sha256" }, { "p384", "es384", "sha384" }, { "p521", "es512", "sha512" }, { "ed25519", "ed" },
}
for _, case in ipairs(openssl) do
  rest()
  local name, signature, md, padding = case[1], made[case[2]], case[3], case[4]
  for _, own in ipairs { key[name], key[name .. "_public"] } do
    rest()
    assert(own:verify(signature, text, md, padding) == true, case[2])
    assert(own:verify(signature, text .. "!", md, padding) == false, case[2])
    assert(own:verify(signature:sub(2), text, md, padding) == false and own:verify("", text, md, padding) == false, case[2])
  end
  for other, wrong in pairs(key) do
    rest()
    if other:sub(1, 3) ~= name:sub(1, 3) and other ~= "certificate" then assert(not wrong:verify(signature, text, md, padding)) end
  end
end
-- A digest object is what it has been given.
local digest = require("resty.openssl.digest").new("sha256")
digest:update("what is ")
digest:update("signed")
assert(key.rsa_public:verify(made.rs256, digest) and key.rsa:sign(digest) == made.rs256)
-- PSS salts.
assert(key.rsa:verify(made.psmax, text, "sha256", PSS, { pss_saltlen = -3 }))
assert(key.rsa:verify(made.psmax, text, "sha256", PSS, { pss_saltlen = -1 }) == false)
refused("pss_saltlen", key.rsa:sign(text, "sha256", PSS, { pss_saltlen = 5 }))
refused("mgf1_md", key.rsa:sign(text, "sha256", PSS, { mgf1_md = "sha1" }))

rest()
-- Own signatures, and what is not signed with.
for _, case in ipairs {
  { "rsa", "sha256" }, { "rsa", "sha384" }, { "rsa", "sha512" }, { "rsa", "sha256", PSS }, { "rsa", "sha512", PSS, { pss_saltlen = -3 } },
  { "p256", "sha256" }, { "p256", "sha256", nil, { ecdsa_use_raw = true } }, { "p384", "sha384", nil, { ecdsa_use_raw = true } },
  { "p521", "sha512" }, { "p521", "sha256", nil, { ecdsa_use_raw = true } }, { "ed25519" },
} do
  local name, md, padding, options = case[1], case[2], case[3], case[4]
  local signature = assert(key[name]:sign(text, md, padding, options))
  assert(key[name .. "_public"]:verify(signature, text, md, padding, options), name)
  assert(key[name .. "_public"]:verify(signature, text:sub(2), md, padding, options) == false, name)
  if options and options.ecdsa_use_raw then
    assert(#signature == ({ p256 = 64, p384 = 96, p521 = 132 })[name])
    assert(not key[name]:verify(signature, text, md))
  end
end
refused("not there", key.rsa:sign(text, "md5"))
refused("not there", key.p384:sign(text, "sha256"))
refused("paddings", key.rsa:sign(text, "sha256", 3))
refused("more than", key.ed25519:sign(("x"):rep(17 * 1024 * 1024)))
-- New keys.
for _, wanted in ipairs { { type = "EC" }, { type = "EC", curve = "secp384r1" }, { type = "Ed25519" } } do
  rest()
  local own = assert(pkey.new(wanted))
  local md = wanted.curve and "sha384" or "sha256"
  assert(pkey.new(own:to_PEM()):verify(own:sign(text, md), text, md) and pkey.new(wanted):to_PEM() ~= own:to_PEM())
end
-- Those of RSA are made beside the worker.
local ticks = 0
local clock = ngx.thread.spawn(function() while true do ngx.sleep(0.001) ticks = ticks + 1 end end)
local rsa = assert(pkey.new { type = "RSA", bits = 2048 })
assert(ticks > 0, "the worker was held")
assert(rsa:is_private() and rsa:get_size() == 256 and rsa:get_key_type().sn == "rsaEncryption")
assert(pkey.new(rsa:to_PEM()):verify(rsa:sign(text), text) and not key.rsa:verify(rsa:sign(text), text))
assert(pkey.new { bits = 3072, exp = 65537 }:get_size() == 384)
local default = pkey.new()
assert(default:get_size() == 256 and default:to_PEM() ~= rsa:to_PEM())
for _, bits in ipairs { 0, 512, 1024, 2047, 16384, "many", 1 / 0 } do refused("RSA keys are made of", pkey.new { bits = bits }) end
refused("exponent", pkey.new { type = "RSA", exp = 3 })
refused("curves", pkey.new { type = "EC", curve = "secp256k1" })
refused("types", pkey.new { type = "DH" })

rest()
-- Encryption for a key.
rest()
assert(key.rsa:decrypt(made.pkcs1) == "a secret" and key.rsa:decrypt(made.oaep1, OAEP) == "a secret")
rest()
assert(key.rsa:decrypt(made.oaep, OAEP, { oaep_md = "sha256" }) == "a secret")
rest()
refused("cannot be decrypted", key.rsa:decrypt(made.oaep, OAEP))
rest()
refused("cannot be decrypted", key.rsa:decrypt(made.oaep:sub(2), OAEP, { oaep_md = "sha256" }))
refused("public one", key.rsa_public:decrypt(made.oaep1, OAEP))
refused("only RSA", key.p256:encrypt("x"))
refused("neither PKCS #1", key.rsa:encrypt("x", 3))
refused("at once", key.rsa:encrypt(("x"):rep(300)))
rest()
assert(key.rsa:decrypt(key.rsa_public:encrypt("x", OAEP), OAEP) == "x" and key.rsa:decrypt(key.certificate:encrypt("y")) == "y")

rest()
-- JSON Web Keys: RFC 8037 A, RFC 7515 A.3.
local okp = '{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"'
local ed = assert(pkey.new(okp .. ',"d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}', { format = "JWK" }))
local signed = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
local signature = ngx.decode_base64(("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg")
  :gsub("-", "+"):gsub("_", "/") .. "==")
assert(ed:sign(signed) == signature and pkey.new(okp .. "}"):verify(signature, signed))
refused("has no x", pkey.new '{"kty":"OKP","crv":"Ed25519"}')
refused("32 bytes", pkey.new '{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}')
refused("do not make", pkey.new(okp .. ',"d":"mWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}'))
refused("a secret", pkey.new '{"kty":"oct","k":"AAAA"}')
refused("no JSON object", pkey.new '{"kty":')
refused("another curve", pkey.new '{"kty":"EC","crv":"secp256k1"}')

rest()
-- Ciphers, against `openssl enc`.
local cipher = require "resty.openssl.cipher"
local bytes = function(digits) return str.from_hex(digits) end
local K = bytes "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
local IV = bytes "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"
for name, expected in pairs {
  ["aes-256-cbc"] = "9a7f1002ff6c956df95b5ea58884586c", ["aes-128-ctr"] = "11cfa69c143b4268e438b9695672",
  ["aes-192-ecb"] = "9df13fc3cf7d8be8d3ffb71487ee58d9",
} do
  local own, K = assert(cipher.new(name)), K:sub(1, tonumber(name:match("%d+")) / 8)
  assert(hex(own:encrypt(K, name:find("ecb") and "" or IV, text)) == expected, name)
  local IV = name:find("ecb") and "" or IV
  assert(own:decrypt(K, IV, bytes(expected)) == text)
  assert(own:init(K, IV, { is_encrypt = true }) and own:update("what ", "is ") == "" and hex(own:final("signed")) == expected)
  refused("incorrect key size", own:encrypt(K .. "x", IV, text))
  refused("incorrect key size", own:decrypt(nil, IV, text))
  refused("incorrect iv size", own:encrypt(K, IV .. "x", text))
  refused("expect a string", own:encrypt(K, IV, 5))
  assert(own:init(K, IV))
  refused("expect a string at #2", own:update("x", nil, "y"))
  refused("has no tag", own:encrypt(K, IV, text, false, "beside"))
  local fine, err = own:init(K .. "x", IV)
  assert(fine == false and err:find("incorrect key size", 1, true))
  refused("not initialized", own:update("x"))
  assert(own:init(K, IV, { is_encrypt = true }) and own:final() )
  refused("not initialized", own:final())
  assert(own:decrypt(K, IV, own:encrypt(K, IV, text .. text .. "1234", true), true) == text .. text .. "1234")
end
local cbc = cipher.new("AES-256-CBC")
rest()
refused("cannot be decrypted", cbc:decrypt(K:reverse(), IV, bytes "9a7f1002ff6c956df95b5ea58884586c"))
refused("whole blocks", cbc:encrypt(K, IV, "x", true))
refused("incorrect iv size", cbc:encrypt(K, "short", "x"))
refused("not initialized", cbc:update("x"))
refused("invalid cipher", cipher.new("des-cbc"))
-- The second case of the paper that defines GCM.
local gcm, zero = cipher.new("aes-128-gcm"), ("\0"):rep(16)
local sealed = gcm:encrypt(zero, zero:sub(1, 12), zero)
assert(hex(sealed) == "0388dace60b6a392f328c2b971b2fe78" and hex(gcm:get_aead_tag()) == "ab6e47d42cec13bdf53a67b21257bddf")
local tag = gcm:get_aead_tag()
assert(gcm:decrypt(zero, zero:sub(1, 12), sealed, false, nil, tag) == zero)
rest()
refused("cannot be decrypted", gcm:decrypt(zero, zero:sub(1, 12), sealed, false, "beside", tag))
rest()
refused("cannot be decrypted", gcm:decrypt(zero, zero:sub(1, 12), sealed, false, nil, tag:reverse()))
refused("16 bytes", gcm:decrypt(zero, zero:sub(1, 12), sealed, false, nil, tag:sub(1, 4)))
refused("tag is missing", gcm:decrypt(zero, zero:sub(1, 12), sealed))
refused("expect a string", gcm:decrypt(zero, zero:sub(1, 12), sealed, false, nil, 5))
refused("cannot be decrypted", gcm:decrypt(zero, zero:sub(1, 12), nil, false, nil, tag))
refused("incorrect iv size", gcm:encrypt(zero, zero, zero))
-- In pieces: nothing comes before the tag was looked at.
local nonce = zero:sub(1, 12)
assert(gcm:init(zero, nonce, { is_encrypt = true }) and gcm:update_aead_aad("be") and gcm:update_aead_aad("side") and gcm:update(zero) == "")
sealed = gcm:final()
tag = gcm:get_aead_tag()
assert(gcm:get_aead_tag(4) == tag:sub(1, 4))
for _, size in ipairs { 0, -1, 17, 1.5, "x" } do refused("1 to 16", gcm:get_aead_tag(size)) end
rest()
assert(gcm:init(zero, nonce) and gcm:update_aead_aad("beside") and gcm:set_aead_tag(tag) and gcm:update(sealed) == "" and gcm:final() == zero)
refused("nothing was encrypted", gcm:get_aead_tag())
assert(gcm:init(zero, nonce) and gcm:update_aead_aad("other") and gcm:set_aead_tag(tag) and gcm:update(sealed) == "")
refused("cannot be decrypted", gcm:final())
refused("not initialized", gcm:final())
assert(gcm:init(zero, nonce) and gcm:update(sealed) == "")
refused("tag is missing", gcm:final())
for _, name in ipairs { "update_aead_aad", "set_aead_tag" } do
  refused("not initialized", gcm[name](gcm, "x"))
  assert(gcm:init(zero, nonce))
  refused("expect a string", gcm[name](gcm, nil))
  gcm.begun = nil
end
refused("expect a string", gcm:derive(nil))
refused("whole number", gcm:derive("x", nil, 0.5))

rest()
-- Derived keys: RFC 6070, RFC 5869, `openssl kdf`.
local kdf = require "resty.openssl.kdf"
local function pbkdf2(md, rounds, length)
  return kdf.derive { type = kdf.PBKDF2, md = md, pass = "password", salt = "salt", pbkdf2_iter = rounds, outlen = length }
end
assert(hex(pbkdf2("sha1", 4096, 20)) == "4b007901b765489abead49d926f721d065a429c1")
assert(hex(pbkdf2("SHA512", 1000, 32)) == "afe6c5530785b6cc6b1c6453384731bd5ee432ee549fd42fb6695779ad8a1c5b")
rest()
ticks = 0
assert(hex(pbkdf2("sha256", 300000, 32)) == "ff58f8b85a4d13cce484a3543af2e6298734cf9bd6ed648d6f98d50b94db35c3")
assert(hex(pbkdf2("sha512", 120000, 64)) == "58b83037b39e21e4f976bb0f07ad6cf4add7178e23297ecd505ac28d282909bc"
  .. "fd23064a3a1e21b9ece3028ecfa11bd7845d65fd41c82e0e0bd1fe0483c621cb")
assert(ticks > 0, "the worker was held")
refused("1 to 10000000 in all", pbkdf2("sha256", 10000001, 32))
refused("1 to 10000000 in all", pbkdf2("sha256", 6000000, 64))
refused("not there", pbkdf2("md5", 200000, 16))
refused("pbkdf2_iter", pbkdf2("sha256", 0, 16))
refused("4096", pbkdf2("sha256", 1, 5000))
refused("not there", pbkdf2("md5", 1, 16))
local hkdf = { type = kdf.HKDF, md = "sha256", hkdf_key = ("\11"):rep(22), salt = bytes "000102030405060708090a0b0c",
  hkdf_info = bytes "f0f1f2f3f4f5f6f7f8f9", outlen = 42 }
local okm = "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"
assert(hex(kdf.derive(hkdf)) == okm)
hkdf.hkdf_mode = kdf.HKDEF_MODE_EXTRACT_ONLY
local prk = kdf.derive(hkdf)
assert(hex(prk) == "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
hkdf.hkdf_mode, hkdf.hkdf_key = kdf.HKDEF_MODE_EXPAND_ONLY, prk
assert(hex(kdf.derive(hkdf)) == okm)
refused("type", kdf.derive { type = kdf.SCRYPT, outlen = 16 })
hkdf.hkdf_key = ("k"):rep(100)
assert(#kdf.derive(hkdf) == 42)
for _, length in ipairs { 0, -1, 1.5, 1e300, 0 / 0, 1 / 0, "x", {} } do
  hkdf.outlen = length
  refused("outlen", kdf.derive(hkdf))
end
hkdf.outlen = 255 * 32 + 1
refused("4096", kdf.derive(hkdf))
hkdf.outlen, hkdf.hkdf_info = 32, 5
refused("hkdf_info", kdf.derive(hkdf))
refused("pbkdf2_iter", kdf.derive { type = kdf.PBKDF2, outlen = 16, pbkdf2_iter = -1 })
refused("expect a table", kdf.derive())

rest()
-- resty.aes, against `openssl enc -k password -S 73616c7473616c74`.
local aes = require "resty.aes"
local one = assert(aes:new("password", "saltsalt"))
assert(hex(one:encrypt(text)) == "01d39229db930f358d7cf52581db4afa" and one:decrypt(one:encrypt(text)) == text)
one = assert(aes:new("password", "saltsalt", aes.cipher(256, "cbc"), aes.hash.sha256))
assert(hex(one:encrypt(text)) == "944e40f8f7edc8780578f6a2038a5844")
one = assert(aes:new(K, nil, aes.cipher(256, "cbc"), { iv = IV }))
assert(hex(one:encrypt(text)) == "9a7f1002ff6c956df95b5ea58884586c")
one = assert(aes:new("anything", nil, aes.cipher(256, "gcm"), { iv = IV:sub(1, 12), method = function() return K end }))
local pair = one:encrypt(text)
assert(one:decrypt(pair[1], pair[2]) == text)
rest()
refused("cannot be decrypted", one:decrypt(pair[1], pair[2]:reverse()))
refused("bad key length", aes:new("short", nil, aes.cipher(256), { iv = IV }))
refused("bad iv", aes:new(K, nil, aes.cipher(256), { iv = "x" }))
refused("bad iv", aes:new(K, nil, aes.cipher(256, "gcm"), { iv = IV }))
refused("bad key length", aes:new(nil, nil, aes.cipher(256), { iv = IV }))
refused("must be a string", aes:new(nil, "saltsalt"))
refused("whole number", aes:new("password", nil, nil, nil, -1))
refused("must be a string", one:encrypt())
refused("must be a string", one:decrypt(nil, pair[2]))
refused("16 bytes", one:decrypt(pair[1]))
refused("8 characters", aes:new("password", "salt"))
refused("1 to 10000000 in all", aes:new("password", nil, aes.cipher(), aes.hash.md5, 1e9))
one = assert(aes:new("password", "saltsalt", aes.cipher(), aes.hash.md5, 150000))
assert(hex(one.key .. one.iv) == "ad527e9949023b299db3bed962e276cc17a665d07eb95931e8526ad3df88d1b4")
ngx.thread.kill(clock)
assert(aes.cipher(512) == nil)
