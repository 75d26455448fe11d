-- Digests under the names that libraries have for them: resty.sha256 and its kin, resty.openssl.{digest,hmac,mac,rand},
-- resty.string, resty.random, kong.tools.{sha256,rand,uuid}, uuid.
local core, module = ...
local host = core.host
local format, byte, gsub = string.format, string.byte, string.gsub

local function hex(bytes)
  return (gsub(bytes, ".", function(c) return format("%02x", byte(c)) end))
end
local function from_hex(text)
  return (gsub(text, "%x%x", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- An object that takes pieces and then gives what `finish` makes of them.
local function gathering(finish)
  local object = { parts = {} }
  function object:update(piece, ...)
    if piece ~= nil then self.parts[#self.parts + 1] = tostring(piece) end
    if select("#", ...) > 0 then return self:update(...) end
    return true
  end
  function object:final(piece)
    if piece ~= nil then self:update(piece) end
    local text = table.concat(self.parts)
    return finish(text)
  end
  function object:reset()
    self.parts = {}
    return true
  end
  return object
end

local function algorithm(name)
  name = tostring(name or "sha1"):lower():gsub("[%-_]", "")
  if host.digest(name, "") == nil then return nil, "invalid digest type \"" .. name .. "\"" end
  return name
end

local function digest_module()
  return {
    new = function(name)
      local known, err = algorithm(name)
      if not known then return nil, err end
      local object = gathering(function(text) return host.digest(known, text) end)
      -- What resty.openssl.pkey signs with it.
      object.algorithm = known
      return object
    end,
  }
end

local function hmac_new(key, name)
  local known, err = algorithm(name)
  if not known then return nil, err end
  return gathering(function(text) return host.hmac(known, key, text) end)
end

local resty = module:match("^resty%.(%w+)$")
if resty and host.digest(resty, "") then
  return {
    _VERSION = "0.15",
    new = function() return gathering(function(text) return host.digest(resty, text) end) end,
  }
end

local function uuid()
  local b = { byte(host.random(16), 1, 16) }
  b[7], b[9] = b[7] % 16 + 64, b[9] % 64 + 128
  return (format("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", unpack(b)))
end

local letters = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
local function random_string()
  return (gsub(host.random(32), ".", function(c)
    local at = byte(c) % #letters + 1
    return letters:sub(at, at)
  end))
end
core.uuid, core.random_string, core.hex = uuid, random_string, hex

local modules = {
  ["resty.string"] = function()
    return { _VERSION = "0.15", to_hex = hex, from_hex = from_hex, atoi = function(text) return tonumber(text:match("^%d+")) or 0 end }
  end,
  ["resty.random"] = function()
    return { _VERSION = "0.15", bytes = function(n) return host.random(n) end }
  end,
  ["resty.openssl.rand"] = function() return { bytes = function(n) return host.random(n) end } end,
  ["resty.openssl.digest"] = digest_module,
  ["resty.openssl.hmac"] = function() return { new = hmac_new } end,
  ["resty.openssl.mac"] = function()
    return {
      new = function(key, kind, _, name)
        if kind ~= "HMAC" then return nil, "only HMAC is supported" end
        return hmac_new(key, name)
      end,
    }
  end,
  ["resty.hmac"] = function()
    local names = { MD5 = "md5", SHA1 = "sha1", SHA256 = "sha256", SHA512 = "sha512" }
    local result = { ALGOS = names }
    function result:new(key, name)
      local object = hmac_new(key, name)
      if not object then return nil end
      local final = object.final
      function object:final(piece, as_hex)
        local bytes = final(self, piece)
        return as_hex and hex(bytes) or bytes
      end
      return object
    end
    return result
  end,
  ["kong.tools.sha256"] = function()
    return {
      sha256_bin = function(text) return host.digest("sha256", text) end,
      sha256_hex = function(text) return hex(host.digest("sha256", text)) end,
    }
  end,
  ["kong.tools.rand"] = function()
    return { get_rand_bytes = function(n) return host.random(n) end, random_string = random_string }
  end,
  ["kong.tools.uuid"] = function()
    return {
      uuid = uuid,
      is_valid_uuid = function(text)
        return type(text) == "string" and #text == 36
          and text:find("^%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$") ~= nil
      end,
    }
  end,
  uuid = function()
    return setmetatable({ new = uuid, generate_v4 = uuid, seed = function() end }, { __call = uuid })
  end,
}
modules["resty.jit-uuid"] = function()
  return setmetatable({
    generate_v4 = uuid, seed = function() end, is_valid = modules["kong.tools.uuid"]().is_valid_uuid,
  }, { __call = uuid })
end
return modules[module]()
