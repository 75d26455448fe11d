-- cjson and cjson.safe, as OpenResty's: options, metatables for arrays, texts of errors.
local core, module = ...
local null = core.null
local buffer = require "string.buffer"
local ffi = require "ffi"
-- Bytes of a text; it ends with a zero. Loops over them are compiled, patterns are not.
local bytes_of = ffi.typeof("const uint8_t *")
local cast = ffi.cast
local byte, find, sub, format, gsub, char = string.byte, string.find, string.sub, string.format, string.gsub, string.char
local type, next, getmetatable, setmetatable, tostring, tonumber = type, next, getmetatable, setmetatable, tostring, tonumber
local floor, huge = math.floor, math.huge

core.json = core.json or {
  array_mt = setmetatable({}, { __name = "array_mt" }),
  empty_array_mt = setmetatable({}, { __name = "empty_array_mt" }),
  empty_array = core.host.empty_array,
}
local json = core.json
local array_mt, empty_array_mt, empty_array = json.array_mt, json.empty_array_mt, json.empty_array

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
for code = 0, 31 do
  local c = char(code)
  escapes[c] = escapes[c] or format("\\u%04x", code)
end
escapes["\127"] = "\\u007f"
local slashed = setmetatable({ ["/"] = "\\/" }, { __index = escapes })

-- Raised as errors of the module, not of this file.
local Failure = {}

local function fail(text)
  error(setmetatable({ text = text }, Failure), 0)
end

-- Encoding -------------------------------------------------------------------------------------------------------------

-- The length of `t` when it is an array; nothing when it is an object.
local function array_length(t, options)
  local largest, items = 0, 0
  for key in next, t do
    if type(key) == "number" and key >= 1 and floor(key) == key then
      items = items + 1
      if key > largest then largest = key end
    else
      return nil
    end
  end
  if options.sparse_ratio > 0 and largest > items * options.sparse_ratio and largest > options.sparse_safe then
    if not options.sparse_convert then fail("Cannot serialise table: excessively sparse array") end
    return nil
  end
  return largest
end

local put

local function needs_escapes(text)
  local p = cast(bytes_of, text)
  for i = 0, #text - 1 do
    local c = p[i]
    if c < 32 or c == 34 or c == 92 or c == 47 or c == 127 then return true end
  end
  return false
end

local function put_string(out, text, options)
  if needs_escapes(text) then
    if options.escape_slash then
      text = gsub(text, '[%c"\\/\127]', slashed)
    else
      text = gsub(text, '[%c"\\\127]', escapes)
    end
  end
  out:put('"', text, '"')
end

local function put_table(out, t, options, depth)
  if depth > options.encode_depth then fail("Cannot serialise, excessive depth (" .. depth .. ")") end
  local meta = getmetatable(t)
  local length
  if meta == array_mt then
    length = #t
  elseif next(t) == nil then
    if meta == empty_array_mt or not options.empty_as_object then
      out:put("[]")
    else
      out:put("{}")
    end
    return
  else
    length = array_length(t, options)
  end
  if length then
    out:put("[")
    for i = 1, length do
      if i > 1 then out:put(",") end
      put(out, t[i], options, depth)
    end
    out:put("]")
    return
  end
  out:put("{")
  local first = true
  for key, value in next, t do
    local kind = type(key)
    if kind ~= "string" and kind ~= "number" then
      fail("Cannot serialise " .. kind .. ": table key must be a number or string")
    end
    if first then first = false else out:put(",") end
    if kind == "number" then
      out:put('"', format(options.number, key), '":')
    else
      put_string(out, key, options)
      out:put(":")
    end
    put(out, value, options, depth)
  end
  out:put("}")
end

function put(out, value, options, depth)
  local kind = type(value)
  if kind == "string" then
    put_string(out, value, options)
  elseif kind == "number" then
    if value ~= value or value == huge or value == -huge then
      if options.invalid_numbers == "null" then
        out:put("null")
      elseif options.invalid_numbers then
        out:put(tostring(value))
      else
        fail("Cannot serialise number: must not be NaN or Infinity")
      end
    else
      out:put(format(options.number, value))
    end
  elseif kind == "table" then
    put_table(out, value, options, depth + 1)
  elseif kind == "boolean" then
    out:put(value and "true" or "false")
  elseif value == nil or value == null then
    out:put("null")
  elseif value == empty_array then
    out:put("[]")
  else
    fail("Cannot serialise " .. kind .. ": type not supported")
  end
end

-- Decoding -------------------------------------------------------------------------------------------------------------

local tokens = {
  ["{"] = "T_OBJ_BEGIN", ["}"] = "T_OBJ_END", ["["] = "T_ARR_BEGIN", ["]"] = "T_ARR_END", [":"] = "T_COLON",
  [","] = "T_COMMA", ['"'] = "T_STRING", [""] = "T_END",
}

local function unexpected(text, at, expected)
  local found = tokens[sub(text, at, at)]
  if not found then
    if find(text, "^true", at) or find(text, "^false", at) then
      found = "T_BOOLEAN"
    elseif find(text, "^null", at) then
      found = "T_NULL"
    elseif find(text, "^-?%d", at) then
      found = "T_NUMBER"
    else
      found = "invalid token"
    end
  end
  fail("Expected " .. expected .. " but found " .. found .. " at character " .. at)
end

local plain = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ['"'] = '"', ["\\"] = "\\", ["/"] = "/" }

local function utf8(code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 64), 0x80 + code % 64) end
  if code < 0x10000 then
    return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64,
    0x80 + code % 64)
end

-- Where the next byte at or after `at` is that is no space.
local function skip(text, at)
  local p = cast(bytes_of, text) - 1
  while p[at] == 32 or p[at] == 10 or p[at] == 13 or p[at] == 9 do at = at + 1 end
  return at
end

-- Where a string goes on that is a quote, an escape or nothing that may be in a string.
local function plain_until(text, at)
  local p = cast(bytes_of, text) - 1
  while p[at] >= 32 and p[at] ~= 34 and p[at] ~= 92 do at = at + 1 end
  return at
end

-- The string that begins after the quote at `at`, and where it is over.
local function read_string(text, at)
  local from = at + 1
  local stop = plain_until(text, from)
  if byte(text, stop) == 34 then return sub(text, from, stop - 1), stop + 1 end
  local out = buffer.new()
  while true do
    stop = plain_until(text, from)
    if stop > #text then fail("Expected value but found unexpected end of string at character " .. #text + 1) end
    out:put(sub(text, from, stop - 1))
    local c = byte(text, stop)
    if c == 34 then return out:tostring(), stop + 1 end
    if c ~= 92 then fail("Expected value but found invalid token at character " .. stop) end
    local escape = sub(text, stop + 1, stop + 1)
    if plain[escape] then
      out:put(plain[escape])
      from = stop + 2
    elseif escape == "u" then
      local digits = text:match("^%x%x%x%x", stop + 2)
      if not digits then fail("Expected value but found invalid unicode escape code at character " .. stop) end
      local code = tonumber(digits, 16)
      from = stop + 6
      if code >= 0xD800 and code < 0xE000 then
        local low = code < 0xDC00 and text:match("^\\u(%x%x%x%x)", from)
        low = low and tonumber(low, 16)
        if not low or low < 0xDC00 or low > 0xDFFF then
          fail("Expected value but found invalid unicode escape code at character " .. stop)
        end
        code = 0x10000 + (code - 0xD800) * 1024 + low - 0xDC00
        from = from + 6
      end
      out:put(utf8(code))
    else
      fail("Expected value but found invalid escape code at character " .. stop)
    end
  end
end

-- A number whose exponent is more than LuaJIT reads; nothing when it is none.
local function extreme(text)
  local digits, exponent = text:match("^(-?%d+%.?%d*)[eE]([+-]?%d+)$")
  if not digits then return nil end
  local value = tonumber(digits)
  if value == 0 or sub(exponent, 1, 1) == "-" then return 0 end
  return value * huge
end

local read

local function read_object(text, at, options, depth)
  if depth > options.decode_depth then
    fail("Found too many nested data structures (" .. depth .. ") at character " .. at)
  end
  local result = {}
  at = skip(text, at + 1)
  if byte(text, at) == 125 then return result, at + 1 end
  while true do
    if byte(text, at) ~= 34 then unexpected(text, at, "object key string") end
    local key, value
    key, at = read_string(text, at)
    at = skip(text, at)
    if byte(text, at) ~= 58 then unexpected(text, at, "colon") end
    value, at = read(text, at + 1, options, depth)
    result[key] = value
    at = skip(text, at)
    local c = byte(text, at)
    if c == 125 then return result, at + 1 end
    if c ~= 44 then unexpected(text, at, "comma or object end") end
    at = skip(text, at + 1)
  end
end

local function read_array(text, at, options, depth)
  if depth > options.decode_depth then
    fail("Found too many nested data structures (" .. depth .. ") at character " .. at)
  end
  local result = options.array_mt and setmetatable({}, array_mt) or {}
  at = skip(text, at + 1)
  if byte(text, at) == 93 then return result, at + 1 end
  local n = 0
  while true do
    n = n + 1
    result[n], at = read(text, at, options, depth)
    at = skip(text, at)
    local c = byte(text, at)
    if c == 93 then return result, at + 1 end
    if c ~= 44 then unexpected(text, at, "comma or array end") end
    at = at + 1
  end
end

function read(text, at, options, depth)
  at = skip(text, at)
  local c = byte(text, at)
  if c == 34 then return read_string(text, at) end
  if c == 123 then return read_object(text, at, options, depth + 1) end
  if c == 91 then return read_array(text, at, options, depth + 1) end
  if c == 45 or c and c >= 48 and c <= 57 then
    local p, stop = cast(bytes_of, text) - 1, at + 1
    local d = p[stop]
    while d >= 48 and d <= 57 or d == 46 or d == 43 or d == 45 or d == 69 or d == 101 do
      stop = stop + 1
      d = p[stop]
    end
    local number = tonumber(sub(text, at, stop - 1)) or extreme(sub(text, at, stop - 1))
    if not number then fail("Expected value but found invalid number at character " .. at) end
    return number, stop
  end
  if c == 116 and sub(text, at, at + 3) == "true" then return true, at + 4 end
  if c == 102 and sub(text, at, at + 4) == "false" then return false, at + 5 end
  if c == 110 and sub(text, at, at + 3) == "null" then return null, at + 4 end
  unexpected(text, at, "value")
end

-- The module ------------------------------------------------------------------------------------------------------------

local new

-- A setting that is read without an argument and set with one.
local function setting(options, name, check)
  return function(value)
    if value ~= nil then options[name] = check(value) end
    return options[name]
  end
end

local function flag(value) return value == true or value == "on" end

local function whole(least, most)
  return function(value)
    value = tonumber(value)
    if not value or value < least or value > most then
      error("bad argument #1 (expected integer between " .. least .. " and " .. most .. ")", 3)
    end
    return floor(value)
  end
end

function new(safe)
  local options = {
    encode_depth = 1000, decode_depth = 1000, empty_as_object = true, escape_slash = true, number = "%.14g", precision = 14,
    sparse_convert = false, sparse_ratio = 2, sparse_safe = 10, invalid_numbers = false, array_mt = false,
  }

  local function guarded(act)
    return function(...)
      local fine, result = pcall(act, ...)
      if fine then return result end
      if getmetatable(result) ~= Failure then error(result, 0) end
      if safe then return nil, result.text end
      error(result.text, 2)
    end
  end

  local module = {
    _NAME = safe and "cjson.safe" or "cjson", _VERSION = "2.1.0.14", null = null, array_mt = array_mt,
    empty_array_mt = empty_array_mt, empty_array = empty_array,
    encode = guarded(function(value)
      local out = buffer.new()
      put(out, value, options, 0)
      return out:tostring()
    end),
    encode_max_depth = setting(options, "encode_depth", whole(1, 10000)),
    decode_max_depth = setting(options, "decode_depth", whole(1, 10000)),
    encode_empty_table_as_object = setting(options, "empty_as_object", flag),
    encode_escape_forward_slash = setting(options, "escape_slash", flag),
    decode_array_with_array_mt = setting(options, "array_mt", flag),
    decode_invalid_numbers = function() return false end,
    encode_keep_buffer = function() return true end,
    encode_invalid_numbers = setting(options, "invalid_numbers", function(value)
      return value == "null" and "null" or flag(value)
    end),
    encode_number_precision = setting(options, "precision", function(value)
      value = whole(1, 17)(value)
      options.number = "%." .. value .. "g"
      return value
    end),
    encode_sparse_array = function(convert, ratio, least)
      if convert ~= nil then options.sparse_convert = flag(convert) end
      if ratio ~= nil then options.sparse_ratio = whole(0, 2147483647)(ratio) end
      if least ~= nil then options.sparse_safe = whole(0, 2147483647)(least) end
      return options.sparse_convert, options.sparse_ratio, options.sparse_safe
    end,
    new = function() return new(safe) end,
  }
  local decode = guarded(function(text)
    local value, at = read(text, 1, options, 0)
    at = skip(text, at)
    if at <= #text then unexpected(text, at, "the end") end
    return value
  end)
  module.decode = function(text)
    if type(text) == "number" then text = tostring(text) end
    if type(text) ~= "string" then
      local reason = "bad argument #1 to 'decode' (string expected, got " .. type(text) .. ")"
      if safe then return nil, reason end
      error(reason, 2)
    end
    return decode(text)
  end
  return module
end

return new(module == "cjson.safe")
