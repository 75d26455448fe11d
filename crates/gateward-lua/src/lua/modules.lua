-- What `require` finds without a file of the plugins: modules that the gateway brings, made when first asked for.
local core = ...
local files, preload, loaded = core.files, core.preload, core.loaded

loaded.ngx = core.ngx
loaded.kong = core.kong
loaded["ngx.semaphore"] = core.semaphore

-- By the file that makes each of them.
local brought = {
  ["lib.cjson"] = { "cjson", "cjson.safe" },
}
for file, names in pairs(brought) do
  for _, name in ipairs(names) do
    preload[name] = function() return files[file](core, name) end
  end
end
