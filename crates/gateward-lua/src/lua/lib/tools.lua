-- Small helpers of Kong and of Penlight, the parts that plugins use.
local core, module = ...
local ngx, null = core.ngx, core.null

local string_tools = {}
function string_tools.strip(text)
  if text == nil then return "" end
  return (tostring(text):match("^%s*(.-)%s*$"))
end
function string_tools.split(text, separator, most)
  separator = separator or ","
  local parts, from = {}, 1
  if separator == "" then
    for c in text:gmatch(".") do parts[#parts + 1] = c end
    return parts
  end
  while not most or most < 1 or #parts + 1 < most do
    local first, last = text:find(separator, from, true)
    if not first then break end
    parts[#parts + 1] = text:sub(from, first - 1)
    from = last + 1
  end
  parts[#parts + 1] = text:sub(from)
  return parts
end
function string_tools.replace_dashes(text) return (text:gsub("-", "_")) end
function string_tools.replace_dashes_lower(text) return (text:gsub("-", "_"):lower()) end
function string_tools.isplitn(text, separator, most)
  local parts, i = string_tools.split(text, separator, most), 0
  return function()
    i = i + 1
    return parts[i]
  end
end
string_tools.splitn = function(text, separator, most)
  local parts = string_tools.split(text, separator, most)
  return parts, #parts
end
function string_tools.bytes_to_str(bytes, unit, scale)
  unit = (unit or "b"):lower()
  scale = scale or 2
  if unit == "b" then return bytes end
  local power = ({ k = 1, kib = 1, m = 2, mib = 2, g = 3, gib = 3 })[unit]
  if not power then error("invalid unit '" .. unit .. "' (expected 'k/K', 'm/M', or 'g/G')", 2) end
  return ("%." .. scale .. "f %s"):format(bytes / 1024 ^ power, ({ "KiB", "MiB", "GiB" })[power])
end

local table_tools = {}
function table_tools.table_contains(list, wanted)
  for _, value in pairs(list or {}) do
    if value == wanted then return true end
  end
  return false
end
function table_tools.is_array(value, mode)
  if type(value) ~= "table" then return false end
  local n = 0
  for key in pairs(value) do
    if type(key) ~= "number" then return false end
    n = n + 1
  end
  return mode == "fast" or n == #value
end
local function copy(value, seen)
  if type(value) ~= "table" then return value end
  if seen[value] then return seen[value] end
  local result = {}
  seen[value] = result
  for key, item in pairs(value) do result[copy(key, seen)] = copy(item, seen) end
  return setmetatable(result, getmetatable(value))
end
function table_tools.cycle_aware_deep_copy(value) return copy(value, {}) end
function table_tools.deep_copy(value) return copy(value, {}) end
function table_tools.shallow_copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do result[key] = item end
  return result
end
function table_tools.table_merge(first, second)
  local result = {}
  for key, value in pairs(first or {}) do result[key] = value end
  for key, value in pairs(second or {}) do result[key] = value end
  return result
end
function table_tools.deep_merge(first, second)
  local result = copy(first, {})
  for key, value in pairs(second) do
    if type(value) == "table" and type(result[key]) == "table" then
      result[key] = table_tools.deep_merge(result[key], value)
    else
      result[key] = copy(value, {})
    end
  end
  return result
end
table_tools.cycle_aware_deep_merge = table_tools.deep_merge
function table_tools.concat(...)
  local result = {}
  for _, list in ipairs { ... } do
    for _, value in ipairs(list) do result[#result + 1] = value end
  end
  return result
end
function table_tools.remove_nulls(value)
  for key, item in pairs(value) do
    if item == null then value[key] = nil elseif type(item) == "table" then value[key] = table_tools.remove_nulls(item) end
  end
  return value
end
function table_tools.null_or_value(value) return value ~= null and value or nil end

local time_tools = {}
function time_tools.time_ns() return core.ngx.now() * 1e9 end
function time_tools.get_now_ms() return core.ngx.now() * 1000 end
function time_tools.get_updated_now() return core.ngx.now() end
function time_tools.get_updated_now_ms() return core.ngx.now() * 1000 end
function time_tools.get_start_time_ms()
  local begun = core.ngx.req and core.ngx.req.start_time and core.ngx.req.start_time() or core.ngx.now()
  return begun * 1000
end

local ip_tools = {}
function ip_tools.is_ipv4(text)
  if type(text) ~= "string" then return false end
  local parts = { text:match("^(%d+)%.(%d+)%.(%d+)%.(%d+)$") }
  for _, part in ipairs(parts) do
    if tonumber(part) > 255 then return false end
  end
  return #parts == 4
end
function ip_tools.hostname_type(text)
  if select(2, text:gsub(":", "")) > 1 then return "ipv6" end
  if ip_tools.is_ipv4((text:gsub(":%d+$", ""))) then return "ipv4" end
  return "name"
end
function ip_tools.format_host(first, second)
  local host, port = first, second
  if type(first) == "table" then host, port = first.host, first.port end
  if type(host) ~= "string" then return nil, "bad argument" end
  if host:find(":", 1, true) and host:sub(1, 1) ~= "[" then host = "[" .. host .. "]" end
  return port and host .. ":" .. port or host
end
function ip_tools.normalize_ip(text)
  local host, port = text:match("^%[(.+)%]:?(%d*)$")
  local kind = host and "ipv6"
  if not host then
    kind = ip_tools.hostname_type(text)
    if kind == "ipv6" then host = text else host, port = text:match("^([^:]+):?(%d*)$") end
  end
  if not host then return nil, "invalid name" end
  port = port and port ~= "" and tonumber(port) or nil
  if port and port > 65535 then return nil, "invalid port number" end
  return { type = kind, host = host, port = port }
end

local function from_urlencoded(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end
local function urlencode(text)
  return (tostring(text):gsub("[^%w%-%._~]", function(c) return ("%%%02X"):format(c:byte()) end))
end
local http_tools = {}
function http_tools.encode_args(args)
  local names, parts = {}, {}
  for name in pairs(args) do names[#names + 1] = name end
  table.sort(names, function(a, b) return tostring(a) < tostring(b) end)
  for _, name in ipairs(names) do
    local values = args[name]
    for _, value in ipairs(type(values) == "table" and values or { values }) do
      parts[#parts + 1] = value == true and urlencode(name) or urlencode(name) .. "=" .. urlencode(value)
    end
  end
  return table.concat(parts, "&")
end
function http_tools.decode_args(text)
  local args = {}
  for part in tostring(text):gmatch("[^&]+") do
    local name, value = part:match("^([^=]*)=(.*)$")
    name, value = from_urlencoded(name or part), value and from_urlencoded(value) or true
    local known = args[name]
    if known == nil then args[name] = value
    elseif type(known) == "table" then known[#known + 1] = value
    else args[name] = { known, value } end
  end
  return args
end
function http_tools.validate_header_name(name)
  if type(name) ~= "string" or name == "" then return nil, "no header name provided" end
  if name:find("^[%w%-_]+$") then return name end
  return nil, "bad header name '" .. name .. "', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
end
function http_tools.validate_cookie_name(name)
  if type(name) ~= "string" or name == "" then return nil, "no cookie name provided" end
  if name:find("^[%w%-_%.!#%$%%&'%*%+%^`|~]+$") then return name end
  return nil, "bad cookie name '" .. name .. "'"
end

local function merged(...)
  local result = {}
  for _, source in ipairs { ... } do
    for name, value in pairs(source) do result[name] = value end
  end
  return result
end

-- Penlight -----------------------------------------------------------------------------------------------------------------

local stringx = {
  startswith = function(text, start)
    for _, each in ipairs(type(start) == "table" and start or { start }) do
      if text:sub(1, #each) == each then return true end
    end
    return false
  end,
  endswith = function(text, stop)
    for _, each in ipairs(type(stop) == "table" and stop or { stop }) do
      if each == "" or text:sub(-#each) == each then return true end
    end
    return false
  end,
  split = function(text, separator, most)
    if separator then return string_tools.split(text, separator, most and most + 1) end
    local parts = {}
    for part in text:gmatch("%S+") do parts[#parts + 1] = part end
    return parts
  end,
  strip = function(text) return (text:match("^%s*(.-)%s*$")) end,
  lstrip = function(text) return (text:match("^%s*(.-)$")) end,
  rstrip = function(text) return (text:match("^(.-)%s*$")) end,
  join = function(separator, list) return table.concat(list, separator) end,
  lower = string.lower, upper = string.upper,
  count = function(text, piece)
    local n, from = 0, 1
    while true do
      local first, last = text:find(piece, from, true)
      if not first or piece == "" then return n end
      n, from = n + 1, last + 1
    end
  end,
  replace = function(text, old, new, most)
    local escaped = old:gsub("%p", "%%%0")
    return (text:gsub(escaped, (new:gsub("%%", "%%%%")), most))
  end,
  partition = function(text, separator)
    local first, last = text:find(separator, 1, true)
    if not first then return text, "", "" end
    return text:sub(1, first - 1), separator, text:sub(last + 1)
  end,
  splitlines = function(text)
    local lines = {}
    for line in (text:gsub("\n$", "") .. "\n"):gmatch("(.-)\r?\n") do lines[#lines + 1] = line end
    return lines
  end,
  isdigit = function(text) return text:find("^%d+$") ~= nil end,
  isalpha = function(text) return text:find("^%a+$") ~= nil end,
  isalnum = function(text) return text:find("^%w+$") ~= nil end,
  isspace = function(text) return text:find("^%s+$") ~= nil end,
}
stringx.trim = stringx.strip

local tablex = {
  deepcopy = table_tools.deep_copy, copy = table_tools.shallow_copy, merge = function(first, second, all)
    local result = {}
    for key, value in pairs(first) do
      if all or second[key] ~= nil then result[key] = value end
    end
    for key, value in pairs(second) do
      if all or first[key] ~= nil then result[key] = value end
    end
    return result
  end,
  keys = function(t)
    local keys = {}
    for key in pairs(t) do keys[#keys + 1] = key end
    return keys
  end,
  values = function(t)
    local values = {}
    for _, value in pairs(t) do values[#values + 1] = value end
    return values
  end,
  size = function(t)
    local n = 0
    for _ in pairs(t) do n = n + 1 end
    return n
  end,
  find = function(list, wanted, from)
    for i = from or 1, #list do
      if list[i] == wanted then return i end
    end
  end,
  map = function(fn, t, ...)
    local result = {}
    for key, value in pairs(t) do result[key] = fn(value, ...) end
    return result
  end,
  filter = function(list, fn, ...)
    local result = {}
    for _, value in ipairs(list) do
      if fn(value, ...) then result[#result + 1] = value end
    end
    return result
  end,
  foreach = function(t, fn, ...)
    for key, value in pairs(t) do fn(value, key, ...) end
  end,
  reduce = function(fn, list, first)
    local from = 1
    if first == nil then first, from = list[1], 2 end
    for i = from, #list do first = fn(first, list[i]) end
    return first
  end,
  makeset = function(list)
    local set = {}
    for _, value in ipairs(list) do set[value] = true end
    return set
  end,
  insertvalues = function(list, ...)
    local more = select(select("#", ...), ...)
    for _, value in ipairs(more) do list[#list + 1] = value end
    return list
  end,
  update = function(t, more)
    for key, value in pairs(more) do t[key] = value end
    return t
  end,
}
local function same(a, b, depth)
  if type(a) ~= "table" or type(b) ~= "table" or depth > 100 then return a == b end
  for key, value in pairs(a) do
    if not same(value, b[key], depth + 1) then return false end
  end
  for key in pairs(b) do
    if a[key] == nil then return false end
  end
  return true
end
tablex.deepcompare = function(a, b) return same(a, b, 0) end
function tablex.sort(t, by)
  local keys = tablex.keys(t)
  table.sort(keys, by)
  local i = 0
  return function()
    i = i + 1
    return keys[i], t[keys[i]]
  end
end

local function pretty(value, depth)
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  if depth > 20 then return "{...}" end
  local parts = {}
  for i = 1, #value do parts[#parts + 1] = pretty(value[i], depth + 1) end
  for key, item in pairs(value) do
    if not (type(key) == "number" and key >= 1 and key <= #value) then
      local name = type(key) == "string" and key:find("^[%a_][%w_]*$") and key or "[" .. pretty(key, depth + 1) .. "]"
      parts[#parts + 1] = name .. " = " .. pretty(item, depth + 1)
    end
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

local modules = {
  ["kong.tools.string"] = function() return string_tools end,
  ["kong.tools.table"] = function() return table_tools end,
  ["kong.tools.time"] = function() return time_tools end,
  ["kong.tools.ip"] = function() return ip_tools end,
  ["kong.tools.http"] = function() return http_tools end,
  ["kong.tools.cjson"] = function()
    local cjson = core.env.require("cjson.safe").new()
    cjson.decode_array_with_array_mt(true)
    return {
      encode = cjson.encode, decode = cjson.decode, decode_with_array_mt = cjson.decode,
      array_mt = cjson.array_mt, new = cjson.new,
    }
  end,
  ["kong.tools.utils"] = function()
    local require = core.env.require
    return merged(string_tools, table_tools, time_tools, ip_tools, http_tools, require "kong.tools.uuid",
      require "kong.tools.rand", require "kong.tools.sha256")
  end,
  ["kong.constants"] = function()
    return {
      HEADERS = {
        HOST_OVERRIDE = "X-Host-Override", PROXY_LATENCY = "X-Kong-Proxy-Latency", RESPONSE_LATENCY = "X-Kong-Response-Latency",
        ADMIN_LATENCY = "X-Kong-Admin-Latency", UPSTREAM_LATENCY = "X-Kong-Upstream-Latency",
        UPSTREAM_STATUS = "X-Kong-Upstream-Status", CONSUMER_ID = "X-Consumer-ID", CONSUMER_CUSTOM_ID = "X-Consumer-Custom-ID",
        CONSUMER_USERNAME = "X-Consumer-Username", CREDENTIAL_USERNAME = "X-Credential-Username",
        CREDENTIAL_IDENTIFIER = "X-Credential-Identifier", RATELIMIT_LIMIT = "X-RateLimit-Limit",
        RATELIMIT_REMAINING = "X-RateLimit-Remaining", CONSUMER_GROUPS = "X-Consumer-Groups",
        AUTHENTICATED_GROUPS = "X-Authenticated-Groups", FORWARDED_HOST = "X-Forwarded-Host",
        FORWARDED_PATH = "X-Forwarded-Path", FORWARDED_PREFIX = "X-Forwarded-Prefix", ANONYMOUS = "X-Anonymous-Consumer",
        VIA = "Via", SERVER = "Server", REQUEST_ID = "X-Kong-Request-Id",
      },
      RATELIMIT = { PERIODS = { "second", "minute", "hour", "day", "month", "year" } },
      REPORTS = {}, PROTOCOLS = { http = "http", https = "http", tcp = "stream", tls = "stream", udp = "stream", grpc = "http", grpcs = "http" },
    }
  end,
  ["kong.plugins.log-serializers.basic"] = function()
    return { serialize = function() return core.kong.log.serialize() end }
  end,
  ["pl.stringx"] = function() return stringx end,
  ["pl.tablex"] = function() return tablex end,
  ["pl.utils"] = function()
    return {
      split = stringx.split, unpack = unpack, pack = function(...) return { n = select("#", ...), ... } end,
      escape = function(text) return (text:gsub("[%-%.%+%[%]%(%)%$%^%%%?%*]", "%%%1")) end,
    }
  end,
  ["pl.pretty"] = function()
    return { write = function(value) return pretty(value, 0) end, dump = function(value) ngx.log(ngx.NOTICE, pretty(value, 0)) end }
  end,
  ["table.nkeys"] = function() return tablex.size end,
  ["table.clone"] = function() return table_tools.shallow_copy end,
  ["table.isempty"] = function() return function(t) return next(t) == nil end end,
  ["table.isarray"] = function() return function(t) return table_tools.is_array(t, "fast") end end,
}
return modules[module]()
