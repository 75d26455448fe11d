-- kong.db.schema.typedefs: the ready-made fields that plugins build their schemas of.
-- https://github.com/Kong/kong/blob/master/kong/db/schema/typedefs.lua names them; the meaning is in kong.db.schema.
local core = ...
local host, null = core.host, core.null
local define = core.define

local typedefs = {}

local function add(name, definition)
  typedefs[name] = define(definition)
end

local function text(name, description, more)
  local definition = { type = "string", description = description }
  for key, value in pairs(more or {}) do definition[key] = value end
  add(name, definition)
end

-- Hosts and addresses ------------------------------------------------------------------------------------------------

local function host_of(value)
  local kind, _, port = host.host_port(value)
  if not kind then return nil, "invalid value: " .. value end
  return kind, port
end

local function validate_host(value)
  local kind, port = host_of(value)
  if not kind then return nil, port end
  if port then return nil, "must not have a port" end
  return true
end

local function validate_host_with_optional_port(value)
  if not host.host_port(value) then return nil, "invalid hostname: " .. value end
  return true
end

local function validate_ip(value)
  local kind, port = host_of(value)
  if not kind then return nil, port end
  if kind == "name" then return nil, "not an ip address: " .. value end
  return true
end

local function bits_of(value)
  local address, bits = value:match("^(.-)/(%d+)$")
  local kind = address and host.host_port(address)
  local most = kind == "ipv4" and 32 or kind == "ipv6" and 128 or -1
  if most < 0 or tonumber(bits) > most then return nil end
  return kind
end

local function validate_ip_or_cidr(value)
  local kind, _, port = host.host_port(value)
  if (kind == "ipv4" or kind == "ipv6") and not port then return true end
  if bits_of(value) then return true end
  return nil, "invalid ip or cidr range: '" .. value .. "'"
end

local function validate_cidr_v4(value)
  if bits_of(value) == "ipv4" or (host.host_port(value) == "ipv4" and not value:find(":", 1, true)) then return true end
  return nil, "invalid cidr range: Invalid IP"
end

local function validate_sni(value)
  local kind, port = host_of(value)
  if not kind then return nil, port end
  if kind ~= "name" then return nil, "must not be an IP" end
  if port then return nil, "must not have a port" end
  return true
end

local function validate_wildcard_host(value)
  local star = value:find("*", 1, true)
  if star then
    if star ~= 1 and star ~= #value then return nil, "wildcard must be leftmost or rightmost character" end
    local count
    value, count = value:gsub("%*", "wildcard")
    if count > 1 then return nil, "only one wildcard must be specified" end
  end
  return validate_sni(value)
end

local function validate_host_with_wildcards(value)
  return validate_host_with_optional_port((value:gsub("%*", "abc")))
end

text("host", "A string representing a host name, such as example.com.", { custom_validator = validate_host })
text("host_with_optional_port", "A string representing a host name with an optional port.",
  { custom_validator = validate_host_with_optional_port })
text("wildcard_host", "A string representing a wildcard host name, such as *.example.com.",
  { custom_validator = validate_wildcard_host })
text("ip", "A string representing an IP address.", { custom_validator = validate_ip })
text("ip_or_cidr", "A string representing an IP address or CIDR block, such as 192.168.1.1 or 192.168.0.0/16.",
  { custom_validator = validate_ip_or_cidr })
text("cidr_v4", "A string representing an IPv4 address in CIDR notation.", { custom_validator = validate_cidr_v4 })
typedefs.cidr = typedefs.cidr_v4
text("sni", "A string representing an SNI (server name indication) value for TLS.", { custom_validator = validate_sni })
text("redis_server_name", "The server name for the TLS extension Server Name Indication (SNI).",
  { custom_validator = validate_sni })
typedefs.redis_host = define { type = "string", custom_validator = validate_host, description = "Host of a Redis server." }
add("port", { type = "integer", between = { 0, 65535 }, description = "An integer representing a port number between 0 and 65535, inclusive." })

-- Paths and URLs -----------------------------------------------------------------------------------------------------

local function validate_path(value)
  if not value:match("^/[%w%.%-%_%~%/%%:@!$&'()*+,;=]*$") then
    return nil, "invalid path: '" .. value .. "' (characters outside of the reserved list of RFC 3986 found)", "rfc3986"
  end
  local rest = value:gsub("%%%x%x", "___")
  local from, to = rest:find("%%.?.?")
  if from then return nil, "invalid url-encoded value: '" .. rest:sub(from, to) .. "'", "percent" end
  return true
end

local function validate_router_path(value)
  if value:sub(1, 1) ~= "~" then
    if value:sub(1, 1) ~= "/" then return nil, "should start with: / (fixed path) or ~/ (regex path)" end
    return validate_path(value)
  end
  local reason = host.regex_error(value:sub(2))
  if reason then return nil, "invalid regex: '" .. value:sub(2) .. "' (" .. reason .. ")" end
  return true
end

local function validate_url(value)
  local scheme, authority = value:match("^(%a[%w+.-]*)://([^/?#]*)")
  if not scheme then
    if value:match("^//[^/]") then return nil, "missing scheme in url" end
    return nil, "missing host in url"
  end
  if authority:gsub("^[^@]*@", ""):gsub(":%d*$", "") == "" then return nil, "missing host in url" end
  return true
end

local no_empty_segments = { { pattern = "//", err = "must not have empty segments" } }
text("path", "A string representing a URL path, such as /path/to/resource.",
  { starts_with = "/", match_none = no_empty_segments, custom_validator = validate_path })
text("url", "A string representing a URL, such as https://example.com/path/to/resource?q=search.",
  { custom_validator = validate_url })
text("router_path", "A string representing a router path.",
  { match_none = no_empty_segments, custom_validator = validate_router_path })
add("router_paths", { type = "array", elements = typedefs.router_path, description = "An array of strings that represent router paths." })
typedefs.paths = typedefs.router_paths

-- Names --------------------------------------------------------------------------------------------------------------

local function validate_name(value)
  if not value:match("^[%w%.%-%_~]+$") then
    return nil, "invalid value '" .. value .. "': it must only contain alphanumeric and '., -, _, ~' characters"
  end
  return true
end

local function validate_utf8_name(value)
  if not host.utf8(value) then return nil, "invalid value: " .. value .. " is not UTF-8" end
  for i = 1, #value do
    local byte = value:byte(i)
    if byte < 128 and not value:sub(i, i):match("[%w%.%-%_~ ]") then
      return nil, "invalid value '" .. value .. "': the only accepted ascii characters are alphanumerics or ., -, _, and ~"
    end
  end
  return true
end

local function validate_tag(value)
  if not host.utf8(value) then return nil, "invalid utf-8 character sequence in tag" end
  if value:find("[%c,/]") then
    return nil, "invalid tag '" .. value .. "': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"
  end
  return true
end

-- An RFC 9110 token.
local function validate_cookie_name(value)
  if value:match("^[%w!#$%%&'*+.^_`|~-]+$") then return true end
  return nil, "bad cookie name '" .. value .. "', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
end

local function validate_header_name(value)
  if value:match("^[%w_-]+$") then return true end
  return nil, "bad header name '" .. value .. "', allowed characters are A-Z, a-z, 0-9, '_', and '-'"
end

text("name", "A unique string representing a name.", { unique = true, custom_validator = validate_name })
text("utf8_name", "A unique string representing a UTF-8 encoded name.", { unique = true, custom_validator = validate_utf8_name })
text("tag", "A string representing a tag.", { required = true, custom_validator = validate_tag })
add("tags", { type = "set", elements = typedefs.tag, description = "A set of strings representing tags." })
text("header_name", "A string representing an HTTP header name.", { custom_validator = validate_header_name })
text("cookie_name", "A string representing an HTTP token defined by RFC 2616.", { custom_validator = validate_cookie_name })
text("http_method", "A string representing an HTTP method, such as GET, POST, PUT, or DELETE.", { match = "^%u+$" })
add("methods", { type = "set", elements = typedefs.http_method, description = "A set of strings representing HTTP methods." })
text("semantic_version", "A string representing a semantic version, such as 1.2.3.",
  { match_any = { patterns = { "^%d+[%.%d]*$" }, err = "invalid version number: must be in format of X.Y.Z" } })
text("capability", "A string representing an RPC capability.", {})

-- Certificates, keys, code -----------------------------------------------------------------------------------------------

local function pem(kind)
  return function(value)
    if host.is_pem(value, kind) then return true end
    return nil, "invalid " .. kind .. ": not in PEM form"
  end
end

text("certificate", "A string representing a certificate.", { custom_validator = pem("certificate") })
text("key", "A string representing a key.", { custom_validator = pem("key") })
text("jwk", "A string representing a JSON web key.", {
  custom_validator = function(value)
    local fields = host.json_object(value)
    if not fields then return nil, "could not load JWK, likely not a valid key" end
    return true
  end,
})
add("pem", {
  type = "record",
  description = "A pair of PEM-encoded public and private keys.",
  fields = {
    { private_key = { type = "string", required = false, referenceable = true, encrypted = true } },
    { public_key = { type = "string", required = false, referenceable = true } },
  },
})
add("lua_code", {
  type = "map",
  keys = { type = "string", len_min = 1 },
  values = {
    type = "string",
    len_min = 1,
    custom_validator = function(code)
      local fine, reason = host.compiles(code)
      if not fine then return nil, "error parsing lua code: " .. reason end
      return true
    end,
  },
  description = "A key-value map of Lua code.",
})

-- Numbers and times ------------------------------------------------------------------------------------------------------

add("timeout", { type = "integer", between = { 0, 2 ^ 31 - 2 }, description = "An integer representing a timeout in milliseconds. Must be between 0 and 2^31-2." })
add("ttl", { type = "number", gt = 0, description = "Seconds until it is not valid any more." })
add("uuid", { type = "string", uuid = true, auto = true, description = "A string representing a UUID (universally unique identifier)." })
add("auto_timestamp_s", { type = "integer", timestamp = true, auto = true, description = "An integer representing an automatic Unix timestamp in seconds." })
add("auto_timestamp_ms", { type = "number", timestamp = true, auto = true, description = "A number representing an automatic Unix timestamp in milliseconds." })

-- Scopes and protocols ---------------------------------------------------------------------------------------------------

for name, reference in pairs { no_route = "routes", no_service = "services", no_consumer = "consumers", no_consumer_group = "consumer_groups" } do
  add(name, { type = "foreign", reference = reference, eq = null, description = "A reference to the '" .. reference .. "' table with a null value allowed." })
end

local all = { "grpc", "grpcs", "http", "https", "tcp", "tls", "tls_passthrough", "udp", "ws", "wss" }
local http = { "grpc", "grpcs", "http", "https" }
text("protocol", "A string representing a protocol, such as HTTP or HTTPS.", { one_of = all })
add("protocols", {
  type = "set", required = true, default = http, elements = typedefs.protocol,
  description = "A set of strings representing protocols.",
})
add("protocols_http", {
  type = "set", required = true, default = http, elements = { type = "string", one_of = http },
  description = "A set of strings representing HTTP protocols.",
})

-- What routes match by -----------------------------------------------------------------------------------------------------

local function nobody(name)
  typedefs["no_" .. name] = define(typedefs[name] { eq = null })
end

for _, name in ipairs { "sources", "destinations" } do
  add(name, {
    type = "set",
    elements = {
      type = "record",
      fields = { { ip = typedefs.ip_or_cidr }, { port = typedefs.port } },
      entity_checks = { { at_least_one_of = { "ip", "port" } } },
    },
  })
  nobody(name)
end
nobody("methods")
add("hosts", {
  type = "array",
  elements = {
    type = "string",
    match_all = { { pattern = "^[^*]*%*?[^*]*$", err = "invalid wildcard: must have at most one wildcard" } },
    match_any = {
      patterns = { "^%*%.", "%.%*$", "^[^*]*$" },
      err = "invalid wildcard: must be placed at leftmost or rightmost label",
    },
    custom_validator = validate_host_with_wildcards,
  },
})
nobody("hosts")
nobody("paths")
add("headers", {
  type = "map",
  keys = {
    type = "string",
    match_none = {
      { pattern = "^[Hh][Oo][Ss][Tt]$", err = "cannot contain 'host' header, which must be specified in the 'hosts' attribute" },
    },
  },
  values = { type = "array", elements = { type = "string" } },
})
nobody("headers")

-- Records that many plugins share ------------------------------------------------------------------------------------------

typedefs.queue = define(core.files["schema.queue"](core))

local formats = { "w3c", "datadog", "b3", "gcp", "instana", "jaeger", "aws", "ot", "b3-single" }
add("propagation", {
  type = "record",
  required = true,
  fields = {
    { extract = { type = "array", elements = { type = "string", one_of = { "ot", "w3c", "datadog", "b3", "gcp", "jaeger", "aws" } } } },
    { clear = { type = "array", elements = { type = "string" } } },
    { inject = { type = "array", elements = { type = "string", one_of = { "preserve", "ot", "w3c", "datadog", "b3", "b3-single", "gcp", "jaeger", "aws" } } } },
    { default_format = { type = "string", one_of = formats, required = true, default = "w3c" } },
  },
})

return setmetatable(typedefs, {
  __index = function(_, name)
    error("schema typedef error: definition " .. tostring(name) .. " does not exist", 2)
  end,
})
