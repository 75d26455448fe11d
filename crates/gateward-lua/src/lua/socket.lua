-- ngx.socket: connections that look blocking and are not.
local core = ...
local host, ngx = core.host, core.ngx
local buffer = require "string.buffer"
local floor = math.floor

local function of(self)
  local own = type(self) == "table" and rawget(self, "socket")
  if not own then error("the first argument must be the socket: use `:`", 3) end
  return own
end

local function whole(value, name, least)
  local number = tonumber(value)
  if not number or number < least or floor(number) ~= number then
    error("bad " .. name .. " argument: " .. tostring(value), 3)
  end
  return number
end

-- Text, numbers and tables of them, in order.
local function put(out, data, level)
  local kind = type(data)
  if kind == "string" or kind == "number" then
    out:put(data)
  elseif kind == "boolean" or kind == "nil" then
    out:put(tostring(data))
  elseif kind == "table" and level < 100 then
    for i = 1, #data do put(out, data[i], level + 1) end
  else
    error("bad argument #1 to 'send' (string, number, boolean, nil, or array table expected, got " .. kind .. ")", 0)
  end
end

local function flat(data)
  if type(data) == "string" then return data end
  local out = buffer.new()
  put(out, data, 0)
  return out:tostring()
end

local function place(name, address, port)
  if type(address) ~= "string" then
    error("bad argument #1 to '" .. name .. "' (string expected, got " .. type(address) .. ")", 3)
  end
  if address:sub(1, 5) == "unix:" then return address, 0, true end
  local number = tonumber(port)
  if not number or number < 0 or number > 65535 or floor(number) ~= number then
    error("bad argument #2 to '" .. name .. "' (port number expected, got " .. tostring(port) .. ")", 3)
  end
  return address, number, false
end

-- Streams --------------------------------------------------------------------------------------------------------------

local tcp = {}
local tcp_meta = { __index = tcp, __metatable = "tcp socket" }

function tcp:connect(address, port, options)
  local own = of(self)
  local name, number, is_unix = place("connect", address, port)
  if is_unix then options = port end
  local pool, size
  if type(options) == "table" then
    pool, size = options.pool, options.pool_size
    if pool ~= nil then pool = tostring(pool) end
    if size ~= nil then size = whole(size, "pool_size", 1) end
  end
  return core.wait(host.tcp_connect(own, name, number, pool, size))
end

function tcp:sslhandshake(session, name, verify)
  if name ~= nil and type(name) ~= "string" then error("bad server name: string expected, got " .. type(name), 2) end
  return core.wait(host.tcp_handshake(of(self), name, verify == true))
end

function tcp:send(data)
  local own = of(self)
  local fine, text = pcall(flat, data)
  if not fine then error(text, 2) end
  return core.wait(host.tcp_send(own, text))
end

local function receive(own, kind, size, text, inclusive)
  local data, other, reached = host.tcp_receive(own, kind, size, text, inclusive)
  if data then return data, nil, reached end
  return core.wait(other)
end

-- Without what is for `receiveuntil` alone.
local function plainly(data, err, partial)
  if data then return data end
  return nil, err, partial
end

function tcp:receive(pattern)
  local own = of(self)
  if pattern == nil or pattern == "*l" then return plainly(receive(own, "line")) end
  if pattern == "*a" then return plainly(receive(own, "all")) end
  local size = tonumber(pattern)
  if not size then error("bad argument #1 to 'receive' (bad pattern argument)", 2) end
  if size < 0 then error("bad argument #1 to 'receive' (bad pattern argument)", 2) end
  return plainly(receive(own, "bytes", floor(size)))
end

function tcp:receiveany(most)
  return plainly(receive(of(self), "any", whole(most, "max", 1)))
end

function tcp:receiveuntil(text, options)
  local own = of(self)
  if type(text) ~= "string" then
    error("bad argument #1 to 'receiveuntil' (string expected, got " .. type(text) .. ")", 2)
  end
  if text == "" then return nil, "pattern is empty" end
  local inclusive = type(options) == "table" and options.inclusive == true
  local done = false
  return function(size)
    if done then
      done = false
      return nil, nil, nil
    end
    if size ~= nil then size = whole(size, "size", 1) end
    local data, err, more = receive(own, "until", size, text, inclusive)
    if not data then return nil, err, more end
    done = more and size ~= nil
    return data
  end
end

function tcp:settimeout(ms)
  ms = tonumber(ms) or 0
  host.tcp_timeouts(of(self), ms, ms, ms)
end

function tcp:settimeouts(connect, send, read)
  host.tcp_timeouts(of(self), tonumber(connect), tonumber(send), tonumber(read))
end

local function yes_or_one(done, err)
  if done then return 1 end
  return nil, err
end

function tcp:setkeepalive(ms, size)
  if size ~= nil then size = whole(size, "size", 1) end
  return yes_or_one(host.tcp_keep(of(self), tonumber(ms), size))
end

function tcp:close()
  return yes_or_one(host.tcp_close(of(self)))
end

function tcp:getreusedtimes()
  return host.tcp_reused(of(self))
end

local options = { keepalive = true, reuseaddr = true, ["tcp-nodelay"] = true, sndbuf = true, rcvbuf = true }

-- Sockets are set up for what they are used for; there is nothing to tune.
function tcp:setoption(option)
  of(self)
  if not options[option] then return nil, "unsupported option " .. tostring(option) end
  return 1
end

-- Datagrams -----------------------------------------------------------------------------------------------------------

local udp = {}
local udp_meta = { __index = udp, __metatable = "udp socket" }

function udp:setpeername(address, port)
  local own = of(self)
  local name, number = place("setpeername", address, port)
  return core.wait(host.udp_peer(own, name, number))
end

function udp:send(data)
  local own = of(self)
  local fine, text = pcall(flat, data)
  if not fine then error(text, 2) end
  return yes_or_one(core.wait(host.udp_send(own, text)))
end

function udp:receive(size)
  return core.wait(host.udp_receive(of(self), size == nil and 8192 or whole(size, "size", 1)))
end

function udp:settimeout(ms)
  host.udp_timeout(of(self), tonumber(ms) or 0)
end

function udp:close()
  return yes_or_one(host.udp_close(of(self)))
end

-- ngx.socket ------------------------------------------------------------------------------------------------------------

local socket = {}
ngx.socket = socket

function socket.tcp()
  return setmetatable({ socket = host.tcp() }, tcp_meta)
end
socket.stream = socket.tcp

function socket.udp()
  return setmetatable({ socket = host.udp() }, udp_meta)
end

function socket.connect(...)
  local sock = socket.tcp()
  local ok, err = sock:connect(...)
  if not ok then return nil, err end
  return sock
end
