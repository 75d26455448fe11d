-- kong.tools.queue_schema: how a plugin that sends things in the background keeps them.
local core = ...

local much = 1000000

return core.define {
  type = "record",
  required = true,
  fields = {
    { max_batch_size = { type = "integer", default = 1, between = { 1, much } } },
    { max_coalescing_delay = { type = "number", default = 1, between = { 0, 3600 } } },
    { max_entries = { type = "integer", default = 10000, between = { 1, much } } },
    { max_bytes = { type = "integer" } },
    { max_retry_time = { type = "number", default = 60 } },
    { initial_retry_delay = { type = "number", default = 0.01, between = { 0.001, much } } },
    { max_retry_delay = { type = "number", default = 60, between = { 0.001, much } } },
    { concurrency_limit = { type = "integer", default = 1, one_of = { -1, 1 } } },
  },
}
