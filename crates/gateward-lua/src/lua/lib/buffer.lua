-- string.buffer for plugins. LuaJIT's own hands out pointers into its memory, which plugins must not have; this one is made of
-- texts. What only makes sense with pointers (reserve, commit, ref, putcdata) and its binary format are not there.
local concat, format, sub = table.concat, string.format, string.sub
local setmetatable, getmetatable, tostring, type, select = setmetatable, getmetatable, tostring, type, select

local buffer = {}
local methods = {}
-- Userdata, because only that has a length of its own; the texts of each.
local kind = newproxy(true)
local Buffer = getmetatable(kind)
Buffer.__index, Buffer.__metatable = methods, "buffer"
local parts_of = setmetatable({}, { __mode = "k" })

-- All of it as one text, which is then the only part.
local function whole(self)
  local parts = parts_of[self]
  if #parts ~= 1 then
    parts = { concat(parts) }
    parts_of[self] = parts
  end
  return parts[1]
end

local function text_of(value)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" or (kind == "table" and (getmetatable(value) or {}).__tostring) or getmetatable(value) == "buffer" then
    return tostring(value)
  end
  error("string expected, got " .. kind, 3)
end

function buffer.new()
  local new = newproxy(kind)
  parts_of[new] = {}
  return new
end

function methods:put(...)
  local parts = parts_of[self]
  for i = 1, select("#", ...) do parts[#parts + 1] = text_of((select(i, ...))) end
  return self
end

function methods:putf(...)
  local parts = parts_of[self]
  parts[#parts + 1] = format(...)
  return self
end

function methods:set(value)
  parts_of[self] = { text_of(value) }
  return self
end

function methods:reset()
  parts_of[self] = {}
  return self
end
methods.free = methods.reset

function methods:skip(count)
  parts_of[self] = { sub(whole(self), count + 1) }
  return self
end

-- What is taken out of it: `count` bytes at a time; without counts all.
function methods:get(...)
  local n = select("#", ...)
  if n == 0 then
    local text = whole(self)
    parts_of[self] = {}
    return text
  end
  local taken, text, at = {}, whole(self), 1
  for i = 1, n do
    local count = select(i, ...)
    taken[i] = count and sub(text, at, at + count - 1) or sub(text, at)
    at = at + #taken[i]
  end
  parts_of[self] = { sub(text, at) }
  return unpack(taken, 1, n)
end

methods.tostring = whole
Buffer.__tostring = whole
Buffer.__len = function(self) return #whole(self) end
Buffer.__concat = function(left, right) return tostring(left) .. tostring(right) end

return buffer
