-- ngx.ssl: what plugins ask of a handshake. https://github.com/openresty/lua-resty-core/blob/master/lib/ngx/ssl.md
local core = ...
local host, state = core.host, core.state
local band = bit.band

local handshake = core.set_of("certificate")
local with_client = core.set_of("certificate", "preread", "rewrite", "access", "response", "header_filter", "body_filter", "log")

local ssl = { SSL3_VERSION = 0x0300, TLS1_VERSION = 0x0301, TLS1_1_VERSION = 0x0302, TLS1_2_VERSION = 0x0303,
  TLS1_3_VERSION = 0x0304 }

local function check(set)
  if band(state.phase, set) == 0 then
    error("API disabled in the context of " .. (core.phase_name() or "a module being loaded"), 3)
  end
end

function ssl.server_name()
  check(with_client)
  return host.wire("sni") or host.request("sni")
end

function ssl.server_port()
  check(with_client)
  return host.request("port")
end

-- An address as the network has it, and its family.
local function raw(bytes)
  return bytes, #bytes == 4 and "inet" or "inet6"
end

function ssl.raw_client_addr()
  check(with_client)
  return raw(host.request("binary_ip"))
end

function ssl.raw_server_addr()
  check(with_client)
  return raw(host.request("binary_local_ip"))
end

function ssl.get_tls1_version_str()
  check(with_client)
  local version = host.request("tls_version")
  if not version then return nil, "the handshake has not agreed on a version yet" end
  return version
end

function ssl.get_tls1_version()
  local name, err = ssl.get_tls1_version_str()
  if not name then return nil, err end
  return name == "TLSv1.2" and ssl.TLS1_2_VERSION or ssl.TLS1_3_VERSION
end

-- Certificates of plugins -------------------------------------------------------------------------------------------------

-- Parsed PEM: what kong.service.set_tls_cert_key takes.
local parsed = core.parsed_pem
parsed.__index = parsed

local function parse(text, kind)
  if type(text) ~= "string" or not host.is_pem(text, kind) then return nil, "PEM_read_bio failed: no " .. kind end
  return setmetatable({ pem = text, kind = kind }, parsed)
end

function ssl.parse_pem_cert(text) return parse(text, "certificate") end
function ssl.parse_pem_priv_key(text) return parse(text, "key") end

-- What clients are shown is in the configuration, by their server names.
local function shown()
  check(handshake)
  return nil, "certificates for clients are set with certificates and snis"
end
ssl.clear_certs, ssl.set_cert, ssl.set_priv_key, ssl.set_der_cert, ssl.set_der_priv_key = shown, shown, shown, shown, shown

return ssl
