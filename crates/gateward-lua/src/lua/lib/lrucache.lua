-- resty.lrucache: a table of the worker that keeps the entries used last.
local core = ...
local ngx = core.ngx

local cache = { _VERSION = "0.13" }
local meta = { __index = cache }

local function unlink(node)
  node.newer.older, node.older.newer = node.older, node.newer
end

local function first(self, node)
  local head = self.head
  node.newer, node.older = head, head.older
  head.older.newer = node
  head.older = node
end

function cache.new(size)
  if type(size) ~= "number" or size < 1 then return nil, "size too small" end
  local head = {}
  head.newer, head.older = head, head
  return setmetatable({ size = size, count_ = 0, nodes = {}, head = head }, meta)
end

function cache:get(key)
  local node = self.nodes[key]
  if not node then return nil end
  unlink(node)
  first(self, node)
  if node.expire and node.expire < ngx.now() then return nil, node.value, node.flags end
  return node.value, nil, node.flags
end

function cache:set(key, value, ttl, flags)
  local node = self.nodes[key]
  if node then
    unlink(node)
  elseif self.count_ >= self.size then
    node = self.head.newer
    unlink(node)
    self.nodes[node.key] = nil
  else
    node = {}
    self.count_ = self.count_ + 1
  end
  node.key, node.value, node.flags = key, value, tonumber(flags) or 0
  node.expire = ttl and ngx.now() + ttl or nil
  self.nodes[key] = node
  first(self, node)
end

function cache:delete(key)
  local node = self.nodes[key]
  if not node then return false end
  unlink(node)
  self.nodes[key] = nil
  self.count_ = self.count_ - 1
  return true
end

function cache:count() return self.count_ end
function cache:capacity() return self.size end

function cache:get_keys(most, result)
  result = result or {}
  local n, node = 0, self.head.older
  most = tonumber(most) or 0
  while node ~= self.head and (most == 0 or n < most) do
    n = n + 1
    result[n] = node.key
    node = node.older
  end
  result[n + 1] = nil
  return result
end

function cache:flush_all()
  self.nodes, self.count_ = {}, 0
  self.head.newer, self.head.older = self.head, self.head
end

return cache
