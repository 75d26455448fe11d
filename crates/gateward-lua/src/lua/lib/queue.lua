-- kong.tools.queue: things that are sent later, several at once, and again when that fails.
local core = ...
local ngx = core.ngx

local queues = {}
local Queue = {}

local defaults = {
  max_batch_size = 1, max_coalescing_delay = 1, max_entries = 10000, initial_retry_delay = 0.01, max_retry_time = 60,
  max_retry_delay = 60,
}

local function setting(queue, name)
  local value = queue.conf[name]
  if value == nil then return defaults[name] end
  return value
end

local function say(level, queue, ...)
  ngx.log(level, "[queue] ", queue.conf.log_tag or "", " ", queue.conf.name, ": ", ...)
end

local function take(queue)
  local batch = {}
  for i = 1, math.min(queue.count, setting(queue, "max_batch_size")) do
    batch[i] = queue.entries[queue.first]
    queue.entries[queue.first] = nil
    queue.first = queue.first + 1
    queue.bytes = queue.bytes - (type(batch[i]) == "string" and #batch[i] or 0)
  end
  queue.count = queue.count - #batch
  return batch
end

local function deliver(queue, batch, once)
  local began, tries, pause = ngx.now(), 0, setting(queue, "initial_retry_delay")
  while true do
    local fine, ok, err = pcall(queue.handler, queue.handler_conf, batch)
    if not fine then ok, err = nil, ok end
    if ok then return end
    tries = tries + 1
    say(ngx.ERR, queue, "handler could not process entries: ", tostring(err))
    if once or ngx.now() - began + pause > setting(queue, "max_retry_time") then
      say(ngx.ERR, queue, "could not send entries due to max_retry_time exceeded. ", tostring(#batch), " queue entries were lost")
      return
    end
    ngx.sleep(pause)
    pause = math.min(pause * 2, setting(queue, "max_retry_delay"))
  end
end

local function run(premature, queue)
  while queue.count > 0 do
    local deadline = ngx.now() + setting(queue, "max_coalescing_delay")
    while not premature and queue.count < setting(queue, "max_batch_size") do
      local left = deadline - ngx.now()
      if left <= 0 then break end
      queue.more:wait(left)
    end
    deliver(queue, take(queue), premature)
  end
  queues[queue.key] = nil
end

local function room_for(queue, value)
  local most = setting(queue, "max_entries")
  local bytes = type(value) == "string" and #value or 0
  local most_bytes = queue.conf.max_bytes
  if most_bytes and bytes > most_bytes then
    say(ngx.ERR, queue, "string to be queued is longer (", bytes, " bytes) than the queue's max_bytes (", most_bytes, " bytes)")
    return false
  end
  local lost = 0
  while queue.count > 0 and (queue.count >= most or most_bytes and queue.bytes + bytes > most_bytes) do
    local old = queue.entries[queue.first]
    queue.entries[queue.first] = nil
    queue.first, queue.count = queue.first + 1, queue.count - 1
    queue.bytes = queue.bytes - (type(old) == "string" and #old or 0)
    lost = lost + 1
  end
  if lost > 0 then say(ngx.ERR, queue, "queue full, dropped ", lost, " old entries") end
  return true
end

function Queue.enqueue(conf, handler, handler_conf, value)
  if type(conf) ~= "table" or type(conf.name) ~= "string" then error("arg #1 (queue_conf) must be a table with a name", 2) end
  if type(handler) ~= "function" then error("arg #2 (handler) must be a function", 2) end
  if handler_conf ~= nil and type(handler_conf) ~= "table" then error("arg #3 (handler_conf) must be a table or nil", 2) end
  if value == nil then error("arg #4 (value_to_queue) must not be nil", 2) end
  local key = conf.name
  local queue = queues[key]
  if not queue then
    queue = { key = key, conf = conf, entries = {}, first = 1, count = 0, bytes = 0, more = core.semaphore.new() }
  end
  queue.conf, queue.handler, queue.handler_conf = conf, handler, handler_conf
  if not room_for(queue, value) then return nil, "entry is too large" end
  queue.entries[queue.first + queue.count] = value
  queue.count = queue.count + 1
  queue.bytes = queue.bytes + (type(value) == "string" and #value or 0)
  if queues[key] then
    if queue.more:count() < 1 then queue.more:post() end
    return true
  end
  queues[key] = queue
  local ok, err = ngx.timer.at(0, run, queue)
  if not ok then
    queues[key] = nil
    return nil, err
  end
  return true
end

function Queue.exists(name)
  return queues[name] ~= nil
end

-- What a plugin's `config.queue` says, with a name for it.
function Queue.get_plugin_params(plugin, config, name)
  local params = {}
  for key, value in pairs(config.queue or {}) do params[key] = value end
  params.name = plugin .. ":" .. (name or config.__plugin_id or "")
  params.log_tag = plugin
  return params
end

return Queue
