-- ngx.shared: dictionaries of the whole node. Any name that is asked for is there.
local core = ...
local host = core.host

local methods = {}
local meta = { __index = methods, __metatable = "shared dict" }
-- What is behind each dictionary. It stands here and not in it, where a plugin could put something else.
local zones = setmetatable({}, { __mode = "k" })

local function of(self)
  local own = self ~= nil and zones[self]
  if not own then error('bad "zone" argument', 3) end
  return own
end

-- Let methods take `view` for `dict`, if that is one.
function core.share_dict(dict, view)
  zones[view] = zones[dict]
end

local function check_key(key)
  if key == nil then return nil, "nil key" end
  key = tostring(key)
  if #key == 0 then return nil, "empty key" end
  if #key > 65535 then return nil, "key too long" end
  return key
end

local function seconds(value, name)
  if value == nil then return 0 end
  value = tonumber(value)
  if value == nil or value < 0 then error('bad "' .. name .. '" argument', 3) end
  return value
end

function methods:get(key)
  local own, text, err = of(self), check_key(key)
  if not text then return nil, err end
  return host.dict_get(own, text, false)
end

-- Also what is out of its time already; the third result tells.
function methods:get_stale(key)
  local own, text, err = of(self), check_key(key)
  if not text then return nil, err end
  return host.dict_get(own, text, true)
end

-- How a value is put there: only when it is new, only when it is not, at the cost of what was there longest.
local manners = {
  set = { "any", true }, safe_set = { "any", false }, add = { "new", true }, safe_add = { "new", false },
  replace = { "known", true },
}
for name, manner in pairs(manners) do
  local when, evict = manner[1], manner[2]
  methods[name] = function(self, key, value, exptime, flags)
    local own, text, err = of(self), check_key(key)
    if not text then return nil, err end
    exptime = seconds(exptime, "exptime")
    if value == nil then
      if when == "new" then return nil, "attempt to add or replace nil values" end
      return host.dict_delete(own, text)
    end
    local kind = type(value)
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then return nil, "bad value type" end
    return host.dict_set(own, text, value, exptime, tonumber(flags) or 0, when, evict)
  end
end

function methods:delete(key)
  local own, text, err = of(self), check_key(key)
  if not text then return nil, err end
  return host.dict_delete(own, text)
end

function methods:incr(key, value, init, init_ttl)
  local own, text, err = of(self), check_key(key)
  if not text then return nil, err end
  local by = tonumber(value)
  if by == nil then error("cannot convert '" .. tostring(value) .. "' to a number", 2) end
  if init ~= nil then
    local number = tonumber(init)
    if number == nil then error("bad init arg: number expected, got " .. type(init), 2) end
    init = number
  end
  if init_ttl ~= nil then
    if init == nil then error('must provide "init" when providing "init_ttl"', 2) end
    init_ttl = seconds(init_ttl, "init_ttl")
  end
  return host.dict_incr(own, text, by, init, init_ttl or 0)
end

for name, front in pairs { lpush = true, rpush = false } do
  methods[name] = function(self, key, value)
    local own, text, err = of(self), check_key(key)
    if not text then return nil, err end
    local kind = type(value)
    if kind ~= "string" and kind ~= "number" then return nil, "bad value type" end
    return host.dict_push(own, text, value, front)
  end
end
for name, front in pairs { lpop = true, rpop = false } do
  methods[name] = function(self, key)
    local own, text, err = of(self), check_key(key)
    if not text then return nil, err end
    return host.dict_pop(own, text, front)
  end
end

function methods:llen(key)
  local own, text, err = of(self), check_key(key)
  if not text then return nil, err end
  return host.dict_length(own, text)
end

function methods:ttl(key)
  local own, text, err = of(self), check_key(key)
  if not text then return nil, err end
  return host.dict_ttl(own, text)
end

function methods:expire(key, exptime)
  local own, text, err = of(self), check_key(key)
  if not text then return nil, err end
  if exptime == nil then error('bad "exptime" argument', 2) end
  return host.dict_expire(own, text, seconds(exptime, "exptime"))
end

function methods:flush_all()
  host.dict_flush_all(of(self))
end

function methods:flush_expired(most)
  return host.dict_flush_expired(of(self), tonumber(most) or 0)
end

function methods:get_keys(most)
  return host.dict_keys(of(self), tonumber(most) or 1024)
end

function methods:capacity()
  return (host.dict_room(of(self)))
end

function methods:free_space()
  return (select(2, host.dict_room(of(self))))
end

core.ngx.shared = setmetatable({}, {
  __index = function(self, name)
    if type(name) ~= "string" then return nil end
    local zone = host.dict(name)
    if zone == nil then return nil end
    local dict = setmetatable({}, meta)
    zones[dict] = zone
    rawset(self, name, dict)
    return dict
  end,
})
