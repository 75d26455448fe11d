-- kong.service: where the request goes. https://developer.konghq.com/gateway/pdk/reference/kong.service/
local core = ...
local host, check = core.host, core.check
local floor = math.floor

local service = { request = {}, response = {} }
core.kong.service = service
-- What ngx.ssl and resty.openssl.x509.store make is of these.
core.parsed_pem, core.x509_store = {}, {}

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

-- Asked by the gateway before a try that follows a failed one, in the balancer phase.
function service.set_target_retry_callback(callback)
  check(before)
  if type(callback) ~= "function" then error("retry_callback must be a function", 2) end
  core.tables().retry_callback = callback
  host.ask_before_retry()
end

-- `ngx.ctx.balancer_data`, of which plugins look at the tries.
function core.note_tries(tries)
  if not tries[1] then return end
  local ctx = core.tables().ctx
  local data = rawget(ctx, "balancer_data")
  if type(data) ~= "table" then
    data = {}
    ctx.balancer_data = data
  end
  data.tries, data.try_count = tries, #tries
end

-- Why the next try goes where the last one did; nothing when it goes by what the callback said: a host and a port that it
-- returned, or what it set.
function core.ask_before_retry()
  local callback = core.tables().retry_callback
  if not callback then return "there is none any more" end
  -- As in Kong the one that is about to begin is among them.
  local tries, now = host.tries_list(), host.now()
  tries[#tries + 1] = { balancer_start = floor(now * 1e3), balancer_start_ns = now * 1e9 }
  core.note_tries(tries)
  local said, port, err = callback()
  if not said then return tostring(err or port or "it says no target and not why") end
  if type(said) == "string" then service.set_target(said, port) end
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

-- What ngx.ssl parsed, of this kind.
local function is_parsed(object, kind)
  return type(object) == "table" and getmetatable(object) == core.parsed_pem and object.kind == kind
end

function service.set_tls_cert_key(chain, key)
  check(before)
  if not is_parsed(chain, "certificate") then error("chain must be a parsed cdata object", 2) end
  if not is_parsed(key, "key") then error("key must be a parsed cdata object", 2) end
  -- Both stay as they are, so what is made of them is made once.
  if chain.identity_with ~= key then chain.identity, chain.identity_with = host.tls_identity(chain.pem, key.pem), key end
  host.set_tls_identity(chain.identity)
  return true
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
  if type(store) ~= "table" or getmetatable(store) ~= core.x509_store then
    error("argument must be a resty.openssl.x509.store object", 2)
  end
  -- Made once, until something is added.
  if not store.authorities then
    local certificates = {}
    for i, certificate in ipairs(store.certificates) do certificates[i] = certificate:to_PEM() end
    store.authorities = host.tls_authorities(certificates, store.trusted)
  end
  host.set_tls_authorities(store.authorities)
  return true
end
