-- The settings of pre-function and post-function.
local typedefs = require "kong.db.schema.typedefs"
local sandbox = require "kong.tools.sandbox"

return function(name)
  local function validate(code)
    local fine, reason = sandbox.validate(code, { chunk_name = name })
    if fine then return true end
    return nil, "error parsing " .. name .. ": " .. reason
  end

  local fields, paths = {}, {}
  for i, phase in ipairs { "certificate", "rewrite", "access", "header_filter", "body_filter", "log" } do
    local field = {
      type = "array", required = true, default = {}, elements = { type = "string", custom_validator = validate },
    }
    fields[i], paths[i] = { [phase] = field }, "config." .. phase
  end
  return {
    name = name,
    fields = {
      { consumer = typedefs.no_consumer },
      { protocols = typedefs.protocols },
      { config = { type = "record", fields = fields } },
    },
    entity_checks = { { at_least_one_of = paths } },
  }
end
