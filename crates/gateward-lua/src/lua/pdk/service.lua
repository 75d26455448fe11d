-- kong.service: where the request goes. https://developer.konghq.com/gateway/pdk/reference/kong.service/
local core = ...
local host, check = core.host, core.check
local floor = math.floor

local service = { request = {}, response = {} }
core.kong.service = service

local access = core.set_of("access")
local before = core.set_of("rewrite", "access", "balancer", "preread")

function service.set_upstream(name)
  check(access)
  if type(name) ~= "string" then error("host must be a string", 2) end
  if not host.set_upstream(name) then return nil, "could not find an Upstream named '" .. name .. "'" end
  return true
end

function service.set_target(name, port)
  check(before)
  if type(name) ~= "string" then error("host must be a string", 2) end
  if type(port) ~= "number" or floor(port) ~= port then error("port must be an integer", 2) end
  if port < 0 or port > 65535 then error("port must be an integer between 0 and 65535: given " .. port, 2) end
  if not host.set_request("host", name) then error("host cannot be one: " .. ("%q"):format(name), 2) end
  host.set_target(name, port)
end

-- The gateway's own tries go to the same target again, or to the next of an upstream.
function service.set_target_retry_callback(callback)
  check(before)
  if type(callback) ~= "function" then error("retry_callback must be a function", 2) end
  return nil, "retry callbacks are not supported: tries after the first go where the balancer says"
end

function service.set_retries(retries)
  check(access)
  if type(retries) ~= "number" or floor(retries) ~= retries then error("retries must be an integer", 2) end
  if retries < 0 or retries > 32767 then
    error("retries must be an integer between 0 and 32767: given " .. retries, 2)
  end
  host.detour("retries", retries)
end

local function check_timeout(name, value)
  if type(value) ~= "number" or floor(value) ~= value then error(name .. " must be an integer", 3) end
  if value < 1 or value > 2147483646 then
    error(name .. " must be an integer between 1 and 2147483646: given " .. value, 3)
  end
end

function service.set_timeouts(connect_timeout, write_timeout, read_timeout)
  check(access)
  check_timeout("connect_timeout", connect_timeout)
  check_timeout("write_timeout", write_timeout)
  check_timeout("read_timeout", read_timeout)
  host.set_timeouts(connect_timeout, write_timeout, read_timeout)
end

-- Certificates of one request's own would need a connection of its own: they belong into the configuration.
function service.set_tls_cert_key()
  check(before)
  return nil, "certificates are set with client_certificate of the service"
end

function service.set_tls_verify(on)
  check(before)
  if type(on) ~= "boolean" then error("argument must be a boolean", 2) end
  host.detour("tls_verify", on and 1 or 0)
  return true
end

function service.set_tls_verify_depth(depth)
  check(before)
  if type(depth) ~= "number" then error("argument must be a number", 2) end
  if depth < 0 or depth > 255 or floor(depth) ~= depth then return nil, "depth must be an integer between 0 and 255" end
  host.detour("tls_verify_depth", depth)
  return true
end

function service.set_tls_verify_store(store)
  check(before)
  if type(store) ~= "table" then error("argument must be a resty.openssl.x509.store object", 2) end
  return nil, "authorities are set with ca_certificates of the service"
end
