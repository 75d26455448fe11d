-- resty.redis: Redis on cosockets, with the calls of lua-resty-redis.
local core = ...
local ngx = core.ngx
local null, socket = core.null, ngx.socket

-- Levels of arrays in an answer, and items of one.
local DEPTH, ITEMS = 32, 1048576

local redis = { _VERSION = "0.31", array_types = {} }

function redis.new()
  local sock, err = socket.tcp()
  if not sock then return nil, err end
  return setmetatable({ sock = sock, subscribed = false }, { __index = redis })
end

function redis:set_timeout(ms) return self.sock:settimeout(ms) end
function redis:set_timeouts(connect, send, read) return self.sock:settimeouts(connect, send, read) end

function redis:connect(host, second, third)
  local options = type(second) == "table" and second or third
  local ok, err
  if type(options) == "table" and not options.pool and options.ssl then
    local copy = {}
    for key, value in pairs(options) do copy[key] = value end
    copy.pool = host .. ":" .. tostring(second) .. ":ssl:" .. (options.server_name or "") .. ":" .. tostring(options.ssl_verify)
    if options == second then ok, err = self.sock:connect(host, copy) else ok, err = self.sock:connect(host, second, copy) end
  else
    ok, err = self.sock:connect(host, second, third)
  end
  if not ok then return nil, err end
  self.subscribed = false
  if type(options) == "table" and options.ssl then
    ok, err = self.sock:sslhandshake(false, options.server_name, options.ssl_verify)
    if not ok then
      self.sock:close()
      return nil, "failed to do ssl handshake: " .. err
    end
  end
  return true
end

function redis:set_keepalive(...)
  if self.subscribed then return nil, "subscribed state" end
  return self.sock:setkeepalive(...)
end

function redis:get_reused_times() return self.sock:getreusedtimes() end
function redis:close() return self.sock:close() end

local function read_reply(sock, depth)
  local line, err = sock:receive()
  if not line then
    if err == "timeout" then sock:close() end
    return nil, err
  end
  local kind, rest = line:sub(1, 1), line:sub(2)
  if kind == "+" then return rest end
  if kind == ":" then return tonumber(rest) end
  if kind == "-" then return false, rest end
  if kind == "$" then
    local size = tonumber(rest)
    if not size then return nil, "bad size of a string: " .. rest end
    if size < 0 then return null end
    local data
    data, err = sock:receive(size)
    if not data then
      if err == "timeout" then sock:close() end
      return nil, err
    end
    local ended
    ended, err = sock:receive(2)
    if not ended then return nil, err end
    return data
  end
  if kind == "*" then
    local n = tonumber(rest)
    if not n or n > ITEMS or depth > DEPTH then return nil, "bad array" end
    if n < 0 then return null end
    local items = {}
    for i = 1, n do
      local item, why = read_reply(sock, depth + 1)
      if item == nil then return nil, why end
      items[i] = item == false and { false, why } or item
    end
    return items
  end
  return nil, 'unknown prefix: "' .. kind .. '"'
end

local function request_of(name, ...)
  local n = select("#", ...)
  local parts = { "*" .. n + 1 .. "\r\n$" .. #name .. "\r\n" .. name .. "\r\n" }
  for i = 1, n do
    local value = tostring((select(i, ...)))
    parts[#parts + 1] = "$" .. #value .. "\r\n"
    parts[#parts + 1] = value
    parts[#parts + 1] = "\r\n"
  end
  return table.concat(parts)
end

local function command(self, name, ...)
  local request = request_of(name, ...)
  local pending = rawget(self, "pending")
  if pending then
    pending[#pending + 1] = request
    return
  end
  local sent, err = self.sock:send(request)
  if not sent then return nil, err end
  return read_reply(self.sock, 0)
end

function redis:init_pipeline(n)
  self.pending = {}
end

function redis:cancel_pipeline()
  self.pending = nil
end

function redis:commit_pipeline()
  local pending = rawget(self, "pending")
  if not pending then return nil, "no pipeline" end
  self.pending = nil
  local sent, err = self.sock:send(pending)
  if not sent then return nil, err end
  local replies = {}
  for i = 1, #pending do
    local reply, why = read_reply(self.sock, 0)
    if reply == nil then return nil, why end
    replies[i] = reply == false and { false, why } or reply
  end
  return replies
end

function redis:read_reply()
  if not self.subscribed then return nil, "not subscribed" end
  return read_reply(self.sock, 0)
end

for _, name in ipairs { "subscribe", "psubscribe" } do
  redis[name] = function(self, ...)
    self.subscribed = true
    return command(self, name, ...)
  end
end
for _, name in ipairs { "unsubscribe", "punsubscribe" } do
  redis[name] = function(self, ...)
    local reply, err = command(self, name, ...)
    if type(reply) == "table" and reply[3] == 0 then self.subscribed = false end
    return reply, err
  end
end

function redis:hmset(key, ...)
  if select("#", ...) ~= 1 or type((...)) ~= "table" then return command(self, "hmset", key, ...) end
  local flat = {}
  for field, value in pairs((...)) do
    flat[#flat + 1] = field
    flat[#flat + 1] = value
  end
  return command(self, "hmset", key, unpack(flat))
end

function redis:array_to_hash(array)
  local hash = {}
  for i = 1, #array, 2 do hash[array[i]] = array[i + 1] end
  return hash
end

function redis.add_commands(...) end

redis.register_module_prefix = function(name)
  redis[name] = function(self) return setmetatable({}, { __index = function(_, command_name)
    return function(_, ...) return command(self, name .. "." .. command_name, ...) end
  end }) end
end

-- Any other name is a command of Redis.
return setmetatable(redis, {
  __index = function(self, name)
    if type(name) ~= "string" then return nil end
    if name == "pending" then return nil end
    local function call(client, ...) return command(client, name, ...) end
    rawset(self, name, call)
    return call
  end,
})
