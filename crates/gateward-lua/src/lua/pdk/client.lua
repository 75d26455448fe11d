-- kong.client. https://developer.konghq.com/gateway/pdk/reference/kong.client/
local core = ...
local host, check = core.host, core.check

local client = { tls = {} }
core.kong.client = client

local init_worker = core.set_of("init_worker")
local known = core.set_of("access", "response", "header_filter", "body_filter", "log")
local access = core.set_of("access")

local function getter(name)
  return function()
    core.check_not(init_worker)
    return host.request(name)
  end
end

client.get_ip = getter("ip")
client.get_forwarded_ip = getter("forwarded_ip")
client.get_port = getter("peer_port")
client.get_forwarded_port = getter("peer_port")

function client.get_credential()
  check(known)
  local own = core.tables().identity
  if own then return own.credential end
  return host.credential()
end

function client.get_consumer()
  check(known)
  local own = core.tables().identity
  if own then return own.consumer end
  return host.consumer()
end

function client.load_consumer(consumer_id, search_by_username)
  check(known)
  if type(consumer_id) ~= "string" then error("consumer_id must be a string", 2) end
  if not search_by_username and not host.is_uuid(consumer_id) then
    error("cannot load a consumer with an id that is not a uuid", 2)
  end
  return host.load_consumer(consumer_id, search_by_username and true or false)
end

function client.authenticate(consumer, credential)
  check(access)
  if consumer ~= nil and type(consumer) ~= "table" then error("consumer must be a table or nil", 2) end
  if credential ~= nil and type(credential) ~= "table" then error("credential must be a table or nil", 2) end
  if consumer == nil and credential == nil then error("either credential or consumer must be provided", 2) end
  -- The very tables, because a plugin may keep more in them than the gateway knows.
  core.tables().identity = { consumer = consumer, credential = credential }
  host.authenticate(consumer, credential)
end

function client.get_protocol(allow_terminated)
  check(known)
  local route = host.route()
  if not route then return nil, "No active route found" end
  if #route.protocols == 1 then return route.protocols[1] end
  if host.wire("subsystem") then return host.wire("upstream_protocol") == "tls" and "tls" or "tcp" end
  return host.request(allow_terminated and "forwarded_scheme" or "scheme")
end

-- kong.client.tls ----------------------------------------------------------------------------------------------------------

local tls = client.tls
local certificate = core.set_of("certificate")
local after_handshake = core.set_of("rewrite", "access", "response", "balancer", "header_filter", "body_filter", "log")
local before_answer = core.set_of("rewrite", "access", "balancer")

-- Whatever the client shows is taken: what it is worth is for the plugin to say.
function tls.request_client_certificate()
  check(certificate)
  host.wish("certificate")
  return true
end

function tls.disable_session_reuse()
  check(certificate)
  host.wish("no_resumption")
  return true
end

-- The names are a hint for clients with more than one certificate.
function tls.set_client_ca_list()
  check(certificate)
  return nil, "names of authorities are not sent to clients: they are asked for any certificate"
end

function tls.get_full_client_certificate_chain()
  check(after_handshake)
  return host.client_chain()
end

local outcomes = { SUCCESS = true, NONE = true }

function tls.set_client_verify(verify)
  check(before_answer)
  if type(verify) ~= "string" or not (outcomes[verify] or verify:find("^FAILED:")) then
    error("unknown client verify value: " .. tostring(verify)
      .. ' accepted values are: "SUCCESS", "NONE" or "FAILED:<reason>"', 2)
  end
  core.tables().client_verify = verify
  core.host.change_record("request.tls.client_verify", verify, "replace")
end
