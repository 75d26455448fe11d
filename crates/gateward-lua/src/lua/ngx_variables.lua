-- More variables of nginx: of connections, certificates, bytes and upstreams; and which of nginx's are not there.
local core, variables, on_wire, prefixes = ...
local host, state, ngx = core.host, core.state, core.ngx
local known = host.request
local band = bit.band

-- Nothing was sent by then.
local before_head = core.set_of("rewrite", "access", "response", "header_filter")

-- Bytes that were sent, counted in the log phase.
local function sent(name)
  return function()
    local bytes = host.figure(name)
    if bytes == nil then return band(state.phase, before_head) ~= 0 and "0" or nil end
    return ("%d"):format(bytes)
  end
end

variables.bytes_sent, variables.body_bytes_sent = sent("response_bytes"), sent("response_body_bytes")
variables.request_completion = function() return host.figure("completed") == 1 and "OK" or "" end

-- Connections ----------------------------------------------------------------------------------------------------------------

function variables.connection()
  local number = known("connection")
  return number and ("%d"):format(number)
end

function variables.http2()
  if known("protocol") ~= "HTTP/2.0" then return "" end
  return known("scheme") == "https" and "h2" or "h2c"
end

-- Of a PROXY header that was trusted.
local function proxied(which, pattern)
  return function()
    local address = known(which)
    return address and address:match(pattern)
  end
end
variables.proxy_protocol_addr = proxied("proxied_source", "^%S+")
variables.proxy_protocol_port = proxied("proxied_source", "%S+$")
variables.proxy_protocol_server_addr = proxied("proxied_destination", "^%S+")
variables.proxy_protocol_server_port = proxied("proxied_destination", "%S+$")

-- Requests -------------------------------------------------------------------------------------------------------------------

variables.document_uri = variables.uri
variables.nginx_version = function()
  local number = ngx.config.nginx_version
  return ("%d.%d.%d"):format(number / 1e6, number / 1e3 % 1e3, number % 1e3)
end

-- What goes on in X-Forwarded-For: nginx adds the client, Kong the peer.
local function forwarded_for(peer)
  return function()
    local before, address = host.joined(core.REQUEST, "X-Forwarded-For"), known(peer)
    return before and before .. ", " .. address or address
  end
end
variables.proxy_add_x_forwarded_for = forwarded_for("forwarded_ip")
variables.upstream_x_forwarded_for = forwarded_for("ip")

-- Certificates of clients ------------------------------------------------------------------------------------------------------

-- Every line but the first begins with a tab.
function variables.ssl_client_cert()
  local pem = variables.ssl_client_raw_cert()
  return pem and (pem:gsub("\n+$", ""):gsub("\n", "\n\t"))
end

local function validity(which)
  local pem = variables.ssl_client_raw_cert()
  local der = pem and host.x509(pem, "PEM")
  return der and host.x509_field(der, which)
end

local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

-- As OpenSSL prints it.
local function moment(which)
  return function()
    local seconds = validity(which)
    if not seconds then return nil end
    local at = os.date("!*t", seconds)
    return ("%s %2d %02d:%02d:%02d %d GMT"):format(months[at.month], at.day, at.hour, at.min, at.sec, at.year)
  end
end
variables.ssl_client_v_start, variables.ssl_client_v_end = moment("not_before"), moment("not_after")

-- Whole days that are left.
function variables.ssl_client_v_remain()
  local seconds = validity("not_after")
  return seconds and ("%d"):format(math.max(0, math.floor((seconds - host.now()) / 86400)))
end

-- Upstreams --------------------------------------------------------------------------------------------------------------------

function prefixes.upstream_cookie_(name) return host.came_from_upstream("Set-Cookie") and host.set_cookie(name) or nil end

-- Streams ----------------------------------------------------------------------------------------------------------------------

for name in ([[connection nginx_version proxy_protocol_addr proxy_protocol_port proxy_protocol_server_addr
  proxy_protocol_server_port ssl_client_raw_cert ssl_client_cert ssl_client_v_start ssl_client_v_end ssl_client_v_remain upstream_addr
  upstream_connect_time]]):gmatch("%S+") do
  on_wire[name] = variables[name]
end

-- What is not there ------------------------------------------------------------------------------------------------------------

local absent = {}
for name in ([[
  ancient_browser connection_time connections_active connections_reading connections_waiting connections_writing date_gmt date_local
  document_root gzip_ratio http3 limit_conn_status limit_rate limit_req_status memcached_key modern_browser msie pipe proxy_host
  proxy_port proxy_protocol_tlv realpath_root request_body_file request_filename secure_link slice_range ssl_alpn_protocol ssl_ciphers
  ssl_curve ssl_curves ssl_early_data ssl_session_id ssl_session_reused tcpinfo_rcv_space tcpinfo_rtt tcpinfo_rttvar
  tcpinfo_snd_cwnd upstream_cache_status upstream_first_byte_time
  upstream_last_modified upstream_queue_time upstream_response_length upstream_session_time
]]):gmatch("%S+") do absent[name] = true end

-- Whether nginx has a variable of this name that is always nil here.
function core.is_absent_variable(name)
  return absent[name] or name:find("^sent_trailer_") ~= nil or name:find("^upstream_trailer_") ~= nil
end

function core.absent_variables()
  local names = {}
  for name in pairs(absent) do names[#names + 1] = name end
  return names
end
