-- resty.aes: https://github.com/openresty/lua-resty-string
local core = ...
local host = core.host

local aes = { _VERSION = "0.15" }
local methods = {}
methods.__index = methods

aes.hash = { md5 = "md5", sha1 = "sha1", sha224 = "sha224", sha256 = "sha256", sha384 = "sha384", sha512 = "sha512" }

function aes.cipher(size, mode)
  size, mode = size or 128, mode or "cbc"
  local name = "aes-" .. size .. "-" .. mode
  if not host.cipher_about(name) then return nil end
  return { size = size, cipher = mode, method = name }
end

-- The key and the vector that a caller brings.
local function brought(key, given, key_size, iv_size)
  local iv = given.iv
  if iv_size == 0 then iv = "" end
  -- A longer one would not be another cipher's, it would be cut: two of them may be one then.
  if type(iv) ~= "string" or #iv ~= iv_size then return nil, "bad iv: it has " .. iv_size .. " bytes" end
  if given.method then key = given.method(key) end
  if type(key) ~= "string" or #key ~= key_size then return nil, "bad key length" end
  return key, iv
end

-- The key and the vector that a password makes.
local function made(password, salt, hash, rounds, key_size, iv_size)
  if type(password) ~= "string" then return nil, "the key must be a string" end
  if salt and (type(salt) ~= "string" or #salt ~= 8) then return nil, "salt must be 8 characters or nil" end
  if type(rounds) ~= "number" or rounds < 1 or rounds % 1 ~= 0 or rounds >= 2 ^ 31 then
    return nil, "hash_rounds must be a whole number above 0"
  end
  local bytes, err = core.derive_chained(hash, password, salt or "", rounds, key_size + iv_size)
  if not bytes then return nil, err end
  return bytes:sub(1, key_size), bytes:sub(key_size + 1)
end

function aes.new(_, key, salt, cipher, hash, rounds, iv_length, padding)
  cipher = cipher or aes.cipher()
  local key_size, iv_size, tag_size = host.cipher_about(cipher.method)
  if not key_size then return nil, "unknown cipher" end
  if iv_length and iv_length ~= iv_size then return nil, "the iv of " .. cipher.method .. " has " .. iv_size .. " bytes" end
  local iv
  if type(hash) == "table" then
    key, iv = brought(key, hash, key_size, iv_size)
  else
    key, iv = made(key, salt, hash or "md5", rounds or 1, key_size, iv_size)
  end
  if not key then return nil, iv end
  return setmetatable({ name = cipher.method, key = key, iv = iv, tag_size = tag_size, padded = padding ~= false }, methods)
end

local function run(self, encrypt, text, no_padding)
  if type(text) ~= "string" then return nil, "the text must be a string" end
  return host.cipher_run(encrypt, self.name, self.key, self.iv, text, self.padded and not no_padding, "")
end

-- The text encrypted; of GCM it and its tag in a table.
function methods:encrypt(text, no_padding)
  local made, err = run(self, true, text, no_padding)
  if not made then return nil, err end
  if self.tag_size == 0 then return made end
  return { made:sub(1, -self.tag_size - 1), made:sub(-self.tag_size) }
end

-- The text; `tag` is GCM's, of other modes it is whether there is no padding.
function methods:decrypt(text, tag)
  if self.tag_size == 0 then return run(self, false, text, tag) end
  if type(tag) ~= "string" or #tag ~= self.tag_size then return nil, "the tag has " .. self.tag_size .. " bytes" end
  return run(self, false, type(text) == "string" and text .. tag)
end

return aes
