local Queue = require "kong.tools.queue"
local sent, tries = {}, 0
local function send(conf, batch)
  tries = tries + 1
  if tries == 1 then return nil, "not yet" end
  if tries == 2 then error("raised") end
  sent[#sent + 1] = table.concat(batch, "")
  return conf.good
end
local conf = { name = "unit", max_batch_size = 3, max_coalescing_delay = 0.05, initial_retry_delay = 0.001, max_entries = 5 }
for i = 1, 4 do assert(Queue.enqueue(conf, send, { good = true }, tostring(i))) end
assert(Queue.exists("unit"))
for i = 1, 400 do
  if not Queue.exists("unit") then break end
  ngx.sleep(0.005)
end
assert(table.concat(sent, ",") == "123,4", table.concat(sent, ","))
-- Of too many the oldest are lost.
sent = {}
for i = 1, 8 do Queue.enqueue(conf, send, { good = true }, tostring(i)) end
for i = 1, 400 do
  if not Queue.exists("unit") then break end
  ngx.sleep(0.005)
end
assert(table.concat(sent, ",") == "456,78", table.concat(sent, ","))
-- What never works is given up.
Queue.enqueue({ name = "never", max_retry_time = 0.02, max_coalescing_delay = 0.001 }, function() return false, "no" end, nil, "x")
for i = 1, 400 do
  if not Queue.exists("never") then break end
  ngx.sleep(0.005)
end
assert(not Queue.exists("never"))
assert(not pcall(Queue.enqueue, {}, send, nil, 1) and not pcall(Queue.enqueue, conf, send, nil, nil))
assert(Queue.get_plugin_params("p", { queue = { max_batch_size = 9 }, __plugin_id = "id" }).name == "p:id")
