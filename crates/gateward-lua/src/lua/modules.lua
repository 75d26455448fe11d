-- What `require` finds without a file of the plugins: modules that the gateway brings, made when first asked for.
local core = ...
local files, preload, loaded = core.files, core.preload, core.loaded
-- Whoever brings a library of their own, of these kinds, means that one.
local theirs = { "^resty%.", "^pl%.", "^uuid$", "^socket", "^lyaml$" }

loaded.ngx = core.ngx
loaded.kong = core.kong
loaded["ngx.re"] = core.ngx_re
loaded["ngx.semaphore"] = core.semaphore

-- By the file that makes each of them.
local brought = {
  ["lib.aes"] = { "resty.aes" },
  ["lib.buffer"] = { "string.buffer" },
  ["lib.cjson"] = { "cjson", "cjson.safe" },
  ["lib.digest"] = {
    "kong.tools.rand", "kong.tools.sha256", "kong.tools.uuid", "resty.hmac", "resty.jit-uuid", "resty.md5",
    "resty.openssl.digest", "resty.openssl.hmac", "resty.openssl.mac", "resty.openssl.rand", "resty.random", "resty.sha1",
    "resty.sha224", "resty.sha256", "resty.sha384", "resty.sha512", "resty.string", "uuid",
  },
  ["lib.http"] = { "resty.http" },
  ["lib.jwt"] = { "resty.jwt" },
  ["lib.jwt_validators"] = { "resty.jwt-validators" },
  ["lib.lock"] = { "resty.lock" },
  ["lib.lrucache"] = { "resty.lrucache", "resty.lrucache.pureffi" },
  ["lib.openssl"] = { "resty.openssl.cipher", "resty.openssl.kdf", "resty.openssl.pkey" },
  ["lib.queue"] = { "kong.tools.queue" },
  ["lib.redis"] = { "resty.redis" },
  ["lib.ssl"] = { "ngx.ssl" },
  ["lib.tools"] = {
    "kong.constants", "kong.plugins.log-serializers.basic", "kong.tools.cjson", "kong.tools.http", "kong.tools.ip",
    "kong.tools.string", "kong.tools.table", "kong.tools.time", "kong.tools.utils", "pl.pretty", "pl.stringx", "pl.tablex",
    "pl.utils", "table.clone", "table.isarray", "table.isempty", "table.nkeys",
  },
  ["lib.url"] = { "resty.url", "socket.url" },
  ["lib.x509"] = { "resty.openssl.x509", "resty.openssl.x509.store" },
  ["lib.yaml"] = { "lyaml" },
}
for file, names in pairs(brought) do
  for _, name in ipairs(names) do
    local function own() return files[file](core, name) end
    preload[name] = own
    for _, pattern in ipairs(theirs) do
      if name:find(pattern) then
        preload[name] = function()
          local load = core.host.load(name, core.env)
          if load then return load(name) end
          return own()
        end
      end
    end
  end
end
