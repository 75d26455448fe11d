-- kong.tracing, kong.telemetry and what of kong.vault needs no vault.
-- https://developer.konghq.com/gateway/pdk/reference/kong.tracing/
--
-- No spans are recorded: the functions are there and do what they do in a Kong whose tracing is off.
local core = ...
local host, kong = core.host, core.kong

local function nothing() end

local span = {}
span.__index = span
function span.set_attribute() end
function span.add_event() end
function span.record_error() end
function span.set_status() end
function span.finish() end
function span.inherit_baggage() end
function span.each_baggage_item() return nothing end

local tracing = { name = "noop" }
-- A tracer of one's own.
kong.tracing = setmetatable(tracing, { __call = function(_, name) return setmetatable({ name = name }, { __index = tracing }) end })

function tracing.start_span(name)
  if type(name) ~= "string" or name == "" then error("invalid span name", 2) end
  return setmetatable({ name = name, should_sample = false, attributes = {}, events = {} }, span)
end

tracing.active_span = nothing
tracing.set_active_span = nothing
tracing.process_span = nothing
tracing.set_should_sample = nothing
function tracing.get_sampling_decision() return false end

kong.telemetry = {}

-- There is no exporter of logs: a record of the gateway's own log, where it takes those of this level (kong.log.info).
function kong.telemetry.log(plugin_name, plugin_config, message_type, message, attributes)
  if type(plugin_name) ~= "string" then return nil, "plugin_name must be a string" end
  if type(plugin_config) ~= "table" then return nil, "plugin_config must be a table" end
  if type(message_type) ~= "string" then return nil, "message_type must be a string" end
  if message and type(message) ~= "string" then return nil, "message must be a string" end
  if attributes and type(attributes) ~= "table" then return nil, "attributes must be a table" end
  if not host.logs(6) then return true end
  local function text(value) return value ~= nil and value ~= core.null and tostring(value) or nil end
  local err = host.telemetry({
    plugin = plugin_name, id = text(plugin_config.__plugin_id), instance = text(plugin_config.plugin_instance_name),
    type = message_type, message = message or nil,
  }, attributes or {})
  if err then return nil, "attributes cannot be logged: " .. err end
  return true
end

kong.vault = kong.vault or {}

function kong.vault.is_reference(reference)
  return type(reference) == "string" and reference:sub(1, 9) == "{vault://" and reference:sub(-1) == "}"
end
