local typedefs = require "kong.db.schema.typedefs"

return {
  name = "tenant",
  fields = {
    { consumer = typedefs.no_consumer },
    { protocols = typedefs.protocols_http },
    { config = {
        type = "record",
        fields = {
          { header_name = typedefs.header_name { required = true, default = "X-Tenant" } },
          { required = { type = "boolean", required = true, default = true } },
          { anonymous = { type = "string", default = "anonymous", len_min = 1 } },
          { default_plan = { type = "string", one_of = { "free", "standard", "premium" } } },
          { plans = {
              type = "map", required = true, default = {},
              keys = { type = "string", len_min = 1 },
              values = { type = "string", one_of = { "free", "standard", "premium" } },
          } },
        },
        entity_checks = {
          { at_least_one_of = { "plans", "default_plan" } },
        },
    } },
  },
}
