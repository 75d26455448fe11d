-- resty.http: an HTTP/1.1 client on cosockets, with the calls of lua-resty-http.
local core = ...
local socket = core.ngx.socket
local lower, byte, char, format, concat = string.lower, string.byte, string.char, string.format, table.concat

-- Lines of a head, and their bytes.
local FIELDS, HEAD = 1000, 1048576
local PIECE = 65536

local http = { _VERSION = "0.17.2" }
local meta = { __index = http }

-- Fields -----------------------------------------------------------------------------------------------------------------

local function plain(name)
  return (lower(tostring(name)):gsub("_", "-"))
end

-- Names are found however they are written.
local fields_meta = {
  __index = function(self, name)
    if type(name) ~= "string" then return nil end
    local wanted = plain(name)
    for known, value in next, self do
      if plain(known) == wanted then return value end
    end
  end,
}

local function escape(text)
  return (tostring(text):gsub("[^%w%-%._~]", function(c) return format("%%%02X", byte(c)) end))
end

local function query_of(query)
  if type(query) ~= "table" then return query and tostring(query) or "" end
  local parts = {}
  for name, value in pairs(query) do
    for _, each in ipairs(type(value) == "table" and value or { value }) do
      parts[#parts + 1] = each == true and escape(name) or each ~= false and escape(name) .. "=" .. escape(each) or nil
    end
  end
  return concat(parts, "&")
end

-- Connecting --------------------------------------------------------------------------------------------------------------

function http.new()
  local sock, err = socket.tcp()
  if not sock then return nil, err end
  return setmetatable({ sock = sock, keepalive = true }, meta)
end

function http:set_timeout(ms)
  self.sock:settimeout(ms)
end

function http:set_timeouts(connect, send, read)
  self.sock:settimeouts(connect, send, read)
end

function http:set_proxy_options(options)
  self.proxy = options
end

local function default_port(scheme)
  return scheme == "https" and 443 or 80
end

function http:connect(first, ...)
  local sock = self.sock
  self.keepalive = true
  if type(first) ~= "table" then
    -- connect(host, port, options) or connect("unix:/path", options)
    local port = ...
    self.host, self.port, self.secure = first, type(port) == "number" and port or tonumber(port), false
    if first:sub(1, 5) == "unix:" then self.host, self.port = nil, nil end
    return sock:connect(first, ...)
  end
  local options = first
  if self.proxy or options.proxy_opts then return nil, "connections through a proxy are not supported" end
  local scheme, host = options.scheme and lower(options.scheme), options.host
  if type(host) ~= "string" then return nil, "no host to connect to" end
  local is_unix = host:sub(1, 5) == "unix:"
  local port = not is_unix and (options.port or default_port(scheme)) or nil
  local verify = options.ssl_verify ~= false
  local name = options.ssl_server_name or (not is_unix and host or nil)
  local pool = options.pool
  if not pool and not is_unix then
    pool = concat({ scheme or "", host, port, tostring(scheme == "https" and verify), scheme == "https" and name or "" }, ":")
  end
  local ok, err
  local pooled = { pool = pool, pool_size = options.pool_size, backlog = options.backlog }
  if is_unix then ok, err = sock:connect(host, pooled) else ok, err = sock:connect(host, port, pooled) end
  if not ok then return nil, err end
  local session
  if scheme == "https" and not is_unix then
    session, err = sock:sslhandshake(nil, name, verify)
    if not session then
      sock:close()
      return nil, err
    end
  end
  self.host, self.port, self.secure = not is_unix and host or nil, port, scheme == "https"
  return true, nil, session
end

function http:ssl_handshake(...)
  self.secure = true
  return self.sock:sslhandshake(...)
end

function http:set_keepalive(...)
  if self.keepalive then return self.sock:setkeepalive(...) end
  local ok, err = self.sock:close()
  if not ok then return nil, err end
  return 2, "connection must be closed"
end

function http:get_reused_times()
  return self.sock:getreusedtimes()
end

function http:close()
  return self.sock:close()
end

function http:parse_uri(uri, query_in_path)
  if type(uri) ~= "string" then return nil, "bad uri: " .. tostring(uri) end
  local scheme, authority, rest = uri:match("^([Hh][Tt][Tt][Pp][Ss]?)://([^/%?#]*)([^#]*)")
  local bare
  if not scheme then
    bare = true
    authority, rest = uri:match("^//([^/%?#]*)([^#]*)")
    scheme = "http"
  end
  if not authority then return nil, "bad uri: " .. uri end
  authority = authority:gsub("^[^@]*@", "")
  local host, port = authority:match("^(%[[^%]]+%]):?(%d*)$")
  if not host then host, port = authority:match("^([^:]+):?(%d*)$") end
  if not host then return nil, "bad uri: " .. uri end
  scheme = lower(scheme)
  port = tonumber(port) or default_port(scheme)
  local path, query = rest:match("^([^%?]*)%??(.*)$")
  if path == "" then path = "/" end
  if query_in_path ~= false and query ~= "" then
    path, query = path .. "?" .. query, ""
  end
  return { scheme, host, port, path, query, bare = bare }
end

-- Sending -------------------------------------------------------------------------------------------------------------------

local function head_of(self, params, version)
  local headers, seen = {}, {}
  for name, value in pairs(params.headers or {}) do
    if type(name) ~= "string" or name:find("[%c%s:]") or name == "" then return nil, "invalid header name: " .. tostring(name) end
    seen[plain(name)] = true
    for _, each in ipairs(type(value) == "table" and value or { value }) do
      each = tostring(each)
      if each:find("[\r\n%z]") then return nil, "invalid value of header " .. name end
      headers[#headers + 1] = name .. ": " .. each .. "\r\n"
    end
  end
  local body = params.body
  if not seen.host and self.host then
    local host = self.host
    if host:find(":", 1, true) and host:sub(1, 1) ~= "[" then host = "[" .. host .. "]" end
    local is_default = not self.port or self.port == default_port(self.secure and "https")
    headers[#headers + 1] = "Host: " .. host .. (is_default and "" or ":" .. self.port) .. "\r\n"
  end
  if not seen["user-agent"] then headers[#headers + 1] = "User-Agent: gateward (Lua)\r\n" end
  local chunked = false
  if type(body) == "table" then
    body = concat(body)
  elseif type(body) == "number" then
    body = tostring(body)
  end
  if type(body) == "function" then
    if not seen["content-length"] and not seen["transfer-encoding"] then
      headers[#headers + 1] = "Transfer-Encoding: chunked\r\n"
      chunked = true
    end
  elseif not seen["content-length"] and not seen["transfer-encoding"] then
    local method = params.method
    if body or method == "POST" or method == "PUT" or method == "PATCH" then
      headers[#headers + 1] = "Content-Length: " .. #(body or "") .. "\r\n"
    end
  end
  if version == 1.0 and not seen.connection then headers[#headers + 1] = "Connection: Keep-Alive\r\n" end
  local target = params.path or "/"
  local query = query_of(params.query)
  if query ~= "" then target = target .. (target:find("?", 1, true) and "&" or "?") .. (query:gsub("^%?", "")) end
  if target:find("[%c%s]") then target = target:gsub("[%c%s]", escape) end
  local line = format("%s %s HTTP/%.1f\r\n", params.method, target, version)
  return line .. concat(headers) .. "\r\n", body, chunked
end

local function send_body(sock, body, chunked)
  if type(body) ~= "function" then return body == nil or body == "" or sock:send(body) end
  while true do
    local piece, err, partial = body()
    piece = piece or partial
    if not piece and err then return nil, err end
    if not piece then break end
    if piece ~= "" then
      local ok, why = sock:send(chunked and { format("%x\r\n", #piece), piece, "\r\n" } or piece)
      if not ok then return nil, why end
    end
  end
  return not chunked or sock:send("0\r\n\r\n")
end

function http:send_request(params)
  params.method = params.method or "GET"
  if not tostring(params.method):find("^[%w!#%$%%&'%*%+%-%.%^_`|~]+$") then return nil, "invalid method" end
  local version = params.version or 1.1
  local head, body, chunked = head_of(self, params, version)
  if not head then return nil, body end
  local ok, err
  if type(body) == "string" and #body < 65536 then
    -- In one write.
    ok, err = self.sock:send { head, body }
  else
    ok, err = self.sock:send(head)
    if ok then ok, err = send_body(self.sock, body, chunked) end
  end
  if not ok then
    self.sock:close()
    return nil, err
  end
  return true
end

-- Receiving -----------------------------------------------------------------------------------------------------------------

local function read_fields(sock, headers)
  local bytes = 0
  for _ = 1, FIELDS do
    local line, err = sock:receive("*l")
    if not line then return nil, err end
    if line == "" then return headers end
    bytes = bytes + #line
    if bytes > HEAD then return nil, "the head is longer than " .. HEAD .. " bytes" end
    local name, value = line:match("^([^:%s]+):%s*(.-)%s*$")
    if name then
      local known = rawget(headers, name)
      if known == nil then known = headers[name] end
      if known == nil then
        headers[name] = value
      elseif type(known) == "table" then
        known[#known + 1] = value
      else
        for same in pairs(headers) do
          if plain(same) == plain(name) then headers[same] = { known, value } end
        end
      end
    end
  end
  return nil, "more than " .. FIELDS .. " header fields"
end

local function none() return nil end

-- A function that gives a piece of the body at each call, at most so many bytes, and nothing at its end.
local function sized_reader(sock, left)
  return function(most)
    if left == 0 then return nil end
    local size = math.min(left, tonumber(most) or PIECE)
    local piece, err, partial = sock:receive(size)
    if not piece then return nil, err, partial end
    left = left - #piece
    return piece
  end
end

local function chunked_reader(sock, headers)
  local left, done = 0, false
  return function(most)
    if done then return nil end
    if left == 0 then
      local line, err = sock:receive("*l")
      if not line then return nil, err end
      local size = line:match("^%s*(%x+)%s*;?")
      left = size and #size <= 13 and tonumber(size, 16)
      if not left then return nil, "unable to read chunksize" end
      if left == 0 then
        done = true
        local ok, why = read_fields(sock, headers)
        if not ok then return nil, why end
        return nil
      end
    end
    local piece, err, partial = sock:receive(math.min(left, tonumber(most) or PIECE))
    if not piece then return nil, err, partial end
    left = left - #piece
    if left == 0 then
      local ok, why = sock:receive(2)
      if not ok then return nil, why end
    end
    return piece
  end
end

local function open_reader(sock)
  local done = false
  return function(most)
    if done then return nil end
    local piece, err, partial = sock:receiveany(tonumber(most) or PIECE)
    if piece then return piece end
    done = true
    if err == "closed" then return partial ~= "" and partial or nil end
    return nil, err, partial
  end
end

local function read_body(response)
  local reader = response.body_reader
  if not reader then return nil, "no body to be read" end
  local parts = {}
  while true do
    local piece, err, partial = reader(PIECE)
    if err then return nil, err, concat(parts) .. (partial or "") end
    if not piece then break end
    parts[#parts + 1] = piece
  end
  return concat(parts)
end

function http:read_response(params)
  local sock = self.sock
  local status, version, reason
  repeat
    local line, err = sock:receive("*l")
    if not line then return nil, err end
    version, status, reason = line:match("^HTTP/(%d%.%d) (%d%d%d) ?(.*)$")
    status = tonumber(status)
    if not status then
      sock:close()
      return nil, "couldn't parse HTTP version from response status line: " .. line:sub(1, 100)
    end
    local informed = status >= 100 and status < 200 and status ~= 101
    if informed then
      local ok, why = read_fields(sock, setmetatable({}, fields_meta))
      if not ok then return nil, why end
    end
  until not informed
  local headers, err = read_fields(sock, setmetatable({}, fields_meta))
  if not headers then
    sock:close()
    return nil, err
  end
  local connection = headers["Connection"]
  connection = lower(type(connection) == "table" and concat(connection, ",") or connection or "")
  if connection:find("close", 1, true) or version == "1.0" and not connection:find("keep-alive", 1, true) then
    self.keepalive = false
  end
  local response = { status = status, reason = reason, headers = headers, has_body = false, body_reader = none,
    read_body = read_body, read_trailers = function(own) return own.headers end }
  if params.method ~= "HEAD" and status ~= 204 and status ~= 304 and status ~= 101 then
    response.has_body = true
    local encoding = headers["Transfer-Encoding"]
    local length = headers["Content-Length"]
    if encoding and version ~= "1.0" and lower(tostring(type(encoding) == "table" and encoding[#encoding] or encoding)):find("chunked", 1, true) then
      response.body_reader = chunked_reader(sock, headers)
    elseif length then
      length = type(length) == "string" and length:match("^%d+$") and tonumber(length)
      if not length then
        sock:close()
        return nil, "bad Content-Length"
      end
      response.has_body = length > 0
      response.body_reader = sized_reader(sock, length)
    else
      self.keepalive = false
      response.body_reader = open_reader(sock)
    end
  end
  return response
end

function http:request(params)
  params = setmetatable({}, { __index = params })
  local ok, err = self:send_request(params)
  if not ok then return nil, err end
  return self:read_response(params)
end

-- One request after another on the connection, without waiting for the answers.
function http:request_pipeline(requests)
  for _, params in ipairs(requests) do
    local ok, err = self:send_request(params)
    if not ok then return nil, err end
  end
  local responses = {}
  for index, params in ipairs(requests) do
    local response, err = self:read_response(params)
    if not response then return nil, err end
    local body
    if response.has_body then
      body, err = response:read_body()
      if err then return nil, err end
      response.read_body = function() return body end
    end
    responses[index] = response
  end
  return responses
end

function http:request_uri(uri, params)
  local asked = {}
  for key, value in pairs(params or {}) do asked[key] = value end
  local parsed, err = self:parse_uri(uri, false)
  if not parsed then return nil, err end
  asked.scheme, asked.host, asked.port = parsed[1], parsed[2]:match("^%[(.+)%]$") or parsed[2], parsed[3]
  asked.path = asked.path or parsed[4]
  if not asked.query and parsed[5] ~= "" then asked.query = parsed[5] end
  local ok
  ok, err = self:connect(asked)
  if not ok then return nil, err end
  local response
  response, err = self:request(asked)
  if not response then
    self:close()
    return nil, err
  end
  local body
  body, err = response:read_body()
  if not body then
    self:close()
    return nil, err
  end
  response.body = body
  if asked.keepalive == false then
    self:close()
  else
    self:set_keepalive(asked.keepalive_timeout, asked.keepalive_pool)
  end
  return response
end

return http
