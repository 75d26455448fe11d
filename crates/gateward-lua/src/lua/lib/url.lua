-- socket.url: the parts of a URL (RFC 3986), as LuaSocket's.
local url = { _VERSION = "URL 1.0.3" }

function url.escape(text)
  return (text:gsub("[^A-Za-z0-9_]", function(c) return ("%%%02x"):format(c:byte()) end))
end

function url.unescape(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

function url.parse(text, defaults)
  local parsed = {}
  for key, value in pairs(defaults or parsed) do parsed[key] = value end
  if not text or text == "" then return nil, "invalid url" end
  local function cut(pattern, act)
    text = text:gsub(pattern, function(part)
      act(part)
      return ""
    end, 1)
  end
  cut("#(.*)$", function(part) parsed.fragment = part end)
  cut("^([%w][%w%+%-%.]*)%:", function(part) parsed.scheme = part end)
  cut("^//([^/%?]*)", function(part) parsed.authority = part end)
  cut("%?(.*)", function(part) parsed.query = part end)
  cut("%;(.*)", function(part) parsed.params = part end)
  if text ~= "" then parsed.path = text end
  local authority = parsed.authority
  if not authority then return parsed end
  authority = authority:gsub("^([^@]*)@", function(part) parsed.userinfo = part return "" end)
  authority = authority:gsub(":([^:%]]*)$", function(part) parsed.port = part return "" end)
  if authority ~= "" then parsed.host = authority:match("^%[(.+)%]$") or authority end
  if parsed.userinfo then
    local user, password = parsed.userinfo:match("^([^:]*):(.*)$")
    parsed.user, parsed.password = user or parsed.userinfo, password
  end
  return parsed
end

function url.build(parsed)
  local text = parsed.path or ""
  if parsed.params then text = text .. ";" .. parsed.params end
  if parsed.query then text = text .. "?" .. parsed.query end
  local authority = parsed.authority
  if parsed.host then
    authority = parsed.host
    if authority:find(":", 1, true) then authority = "[" .. authority .. "]" end
    if parsed.port then authority = authority .. ":" .. tostring(parsed.port) end
    local user = parsed.userinfo
    if parsed.user then
      user = parsed.user
      if parsed.password then user = user .. ":" .. parsed.password end
    end
    if user then authority = user .. "@" .. authority end
  end
  if authority then text = "//" .. authority .. text end
  if parsed.scheme then text = parsed.scheme .. ":" .. text end
  if parsed.fragment then text = text .. "#" .. parsed.fragment end
  return text
end

local function without_dots(path)
  local out = {}
  local last
  for part in path:gmatch("[^/]*") do
    last = part
    if part == ".." then
      out[#out] = nil
    elseif part ~= "." and part ~= "" then
      out[#out + 1] = part
    end
  end
  local text = table.concat(out, "/")
  if path:sub(1, 1) == "/" then text = "/" .. text end
  if (last == "." or last == ".." or path:sub(-1) == "/") and text:sub(-1) ~= "/" then text = text .. "/" end
  return text
end

function url.absolute(base, relative)
  local from = type(base) == "table" and base or url.parse(base)
  local to = url.parse(relative)
  if not from then return relative end
  if not to then return url.build(from) end
  if to.scheme then return relative end
  to.scheme = from.scheme
  if to.authority then return url.build(to) end
  for _, part in ipairs { "authority", "userinfo", "user", "password", "host", "port" } do to[part] = from[part] end
  if not to.path then
    to.path, to.params, to.query = from.path, to.params or from.params, to.query or from.query
  elseif to.path:sub(1, 1) ~= "/" then
    to.path = without_dots((from.path or "/"):gsub("[^/]*$", "") .. to.path)
  end
  return url.build(to)
end

function url.parse_path(path)
  local parsed = {}
  path = path or ""
  path:gsub("([^/]+)", function(part) parsed[#parsed + 1] = url.unescape(part) end)
  if path:sub(1, 1) == "/" then parsed.is_absolute = 1 end
  if path:sub(-1) == "/" then parsed.is_directory = 1 end
  return parsed
end

function url.build_path(parsed, as_is)
  local parts = {}
  for i = 1, #parsed do parts[i] = as_is and parsed[i] or url.escape(parsed[i]) end
  local path = table.concat(parts, "/")
  if parsed.is_absolute then path = "/" .. path end
  if parsed.is_directory and path:sub(-1) ~= "/" then path = path .. "/" end
  return path
end

return url
