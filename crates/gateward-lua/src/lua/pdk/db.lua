-- kong.db, read only: the entities of the configuration that is served. kong.dns, kong.vault, and events within the worker.
local core = ...
local host, ngx, kong = core.host, core.ngx, core.kong

local kinds = {
  "consumers", "routes", "services", "plugins", "upstreams", "targets", "certificates", "snis", "ca_certificates",
  "keyauth_credentials", "basicauth_credentials", "acls",
}
-- By what each is found beside its id.
local unique = {
  consumers = { "username", "custom_id" }, routes = { "name" }, services = { "name" }, upstreams = { "name" },
  snis = { "name" }, plugins = { "instance_name" }, targets = {}, certificates = {}, ca_certificates = {},
  keyauth_credentials = { "key" }, basicauth_credentials = { "username" }, acls = {},
}
local cached, generation = {}, -1

-- Entities that are taken in at a time.
local PIECE = 200

-- All of a kind, with an index; made when first asked for, and anew for each configuration. Piece by piece, each of which is
-- kept: a handler that is stopped in the middle of very many has not worked in vain, the next goes on from there.
local function all(kind)
  local now = host.snapshot_generation()
  if now ~= generation then cached, generation = {}, now end
  local known = cached[kind]
  if known == nil then
    known = { rows = {}, id = {} }
    for _, field in ipairs(unique[kind]) do known[field] = {} end
    cached[kind] = known
  end
  local rows = known.rows
  while not known.complete do
    local piece = host.entities(kind, #rows, PIECE)
    for _, row in ipairs(piece) do
      known.id[row.id] = row
      for _, field in ipairs(unique[kind]) do
        if row[field] ~= nil then known[field][row[field]] = row end
      end
      rows[#rows + 1] = row
    end
    known.complete = #piece < PIECE
  end
  return known
end

-- A plugin may change what it is given.
local function own(row)
  if row == nil then return nil end
  local function copy(value)
    if type(value) ~= "table" then return value end
    local result = {}
    for key, item in pairs(value) do result[key] = copy(item) end
    return result
  end
  return copy(row)
end

local function refused()
  return nil, "the configuration is declarative: entities cannot be changed from a plugin", { code = 0 }
end

local db = {}
kong.db = db
for _, kind in ipairs(kinds) do
  local dao = {}
  db[kind] = dao
  function dao:select(key)
    if type(key) == "table" then key = key.id end
    if type(key) ~= "string" then return nil, "invalid primary key", { code = 1 } end
    return own(all(kind).id[key])
  end
  for _, field in ipairs(unique[kind]) do
    dao["select_by_" .. field] = function(_, value)
      if type(value) ~= "string" then return nil, "invalid " .. field, { code = 1 } end
      return own(all(kind)[field][value])
    end
  end
  function dao:cache_key(key, second, third, fourth, fifth)
    if type(key) == "table" then key = key.id or key.key or key.username or key.name end
    return table.concat({ kind, tostring(key or ""), second or "", third or "", fourth or "", fifth or "" }, ":")
  end
  function dao:each()
    local rows, i = all(kind).rows, 0
    return function()
      i = i + 1
      if rows[i] then return own(rows[i]), nil, 1 end
    end
  end
  function dao:page(size, offset)
    local rows, from = all(kind).rows, tonumber(offset) or 0
    size = math.min(math.max(tonumber(size) or 100, 1), 1000)
    local page = {}
    for i = from + 1, math.min(from + size, #rows) do page[#page + 1] = own(rows[i]) end
    local last = from + size
    return page, nil, nil, last < #rows and tostring(last) or nil
  end
  dao.insert, dao.update, dao.upsert, dao.delete = refused, refused, refused, refused
end
for kind, parent in pairs { targets = "upstream", routes = "service", plugins = "service", acls = "consumer",
  keyauth_credentials = "consumer", basicauth_credentials = "consumer", snis = "certificate" } do
  db[kind]["each_for_" .. parent] = function(_, key)
    local each = db[kind]:each()
    return function()
      for row in each do
        if row[parent] and row[parent].id == (key and key.id) then return row, nil, 1 end
      end
    end
  end
  db[kind]["page_for_" .. parent] = function(_, key)
    local page = {}
    for row in db[kind]["each_for_" .. parent](nil, key) do page[#page + 1] = row end
    return page
  end
end

-- Names ---------------------------------------------------------------------------------------------------------------------

kong.dns = {}
function kong.dns.toip(name, port)
  if type(name) ~= "string" then error("host must be a string", 2) end
  local address, err = core.wait(host.resolve(name))
  if not address then return nil, err end
  return address, tonumber(port)
end
function kong.dns.resolve(name)
  local address, err = kong.dns.toip(name)
  if not address then return nil, err end
  return { { address = address, name = name, type = address:find(":", 1, true) and 28 or 1, class = 1, ttl = 1 } }
end

-- Secrets ------------------------------------------------------------------------------------------------------------------

local vault = kong.vault or {}
kong.vault = vault
local getenv = os.getenv

-- `{vault://env/name}` and `{vault://env/name/field}`.
function vault.get(reference)
  if type(reference) ~= "string" then return nil, "reference must be a string" end
  local kind, path = reference:match("^{vault://([%w%-_]+)/([^}%?]+)[^}]*}$")
  if not kind then return nil, "not a reference [" .. reference .. "]" end
  if kind ~= "env" then return nil, "could not find vault (" .. kind .. ") [" .. reference .. "]" end
  local name, field = path:match("^([^/]+)/?(.*)$")
  local value = getenv(name:gsub("%-", "_"):upper()) or getenv(name)
  if value == nil then return nil, "could not get value from external vault (no value found) [" .. reference .. "]" end
  if field == "" then return value end
  local fields = core.env.require("cjson.safe").decode(value)
  value = type(fields) == "table" and fields[field]
  if type(value) ~= "string" then return nil, "could not get subfield value [" .. reference .. "]" end
  return value
end

-- Events -----------------------------------------------------------------------------------------------------------------

local handlers = {}
local function post(source, event, data)
  local function run()
    for _, handler in ipairs(handlers) do
      if (handler.source == nil or handler.source == source) and (handler.event == nil or handler.event == event) then
        local fine, err = pcall(handler.call, data, event, source)
        if not fine then ngx.log(ngx.ERR, "worker event handler failed: ", err) end
      end
    end
  end
  local ok, err = ngx.timer.at(0, run)
  if not ok then return nil, err end
  return true
end
local events = {}
function events.register(call, source, event)
  if type(call) ~= "function" then error("expected a function", 2) end
  handlers[#handlers + 1] = { call = call, source = source, event = event }
  return true
end
events.register_weak = events.register
function events.unregister(call)
  for i = #handlers, 1, -1 do
    if handlers[i].call == call then table.remove(handlers, i) end
  end
end
events.post, events.post_local = post, post
kong.worker_events = events
kong.cluster_events = {
  subscribe = function(_, channel, call) return events.register(call, "cluster", channel) end,
  broadcast = function(_, channel, data) return post("cluster", channel, data) end,
}
