-- kong.tracing, kong.telemetry and what of kong.vault needs no vault.
-- https://developer.konghq.com/gateway/pdk/reference/kong.tracing/
--
-- No spans are recorded: the functions are there and do what they do in a Kong whose tracing is off.
local core = ...
local kong = core.kong

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

function kong.telemetry.log(plugin_name, _, message_type, message)
  if type(plugin_name) ~= "string" then error("plugin_name must be a string", 2) end
  if type(message_type) ~= "string" then error("message_type must be a string", 2) end
  if message ~= nil and type(message) ~= "string" then error("message must be a string or nil", 2) end
  return nil, "telemetry logging is not enabled"
end

kong.vault = kong.vault or {}

function kong.vault.is_reference(reference)
  return type(reference) == "string" and reference:sub(1, 9) == "{vault://" and reference:sub(-1) == "}"
end
