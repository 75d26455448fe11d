-- Puts the machine together. Gets what Rust prepared, gives back `require` as plugins call it.
local boot = ...
local files = boot.files

local core = files.core(boot)
-- Nothing that is made from here on may reach the libraries that break out of the machine.
local kong = {
  version = "3.9.1",
  version_num = 3009001,
}
local ngx = files.ngx(core)
core.kong, core.ngx = kong, ngx
core.coroutine = files.coroutine(core)
files.thread(core)
files.timer(core)
files.shared(core)
files.semaphore(core)
files.socket(core)
files.work(core)
-- The PDK's JSON is cjson's, with a way back for arrays.
local cjson = files["lib.cjson"](core, "cjson.safe")
cjson.decode_array_with_array_mt(true)
core.encode, core.decode = cjson.encode, cjson.decode
files["pdk.base"](core)
files["pdk.body"](core)
files["pdk.client"](core)
files["pdk.ctx"](core)
files["pdk.log"](core)
files["pdk.node"](core)
files["pdk.request"](core)
files["pdk.response"](core)
files["pdk.service"](core)
files["pdk.service_request"](core)
files["pdk.service_response"](core)
files["pdk.table"](core)
files["pdk.tracing"](core)
files.ngx_http(core)
files.ngx_re(core)
local require = files.sandbox(core)
core.untrusted = boot.untrusted
core.preload["kong.tools.sandbox"] = function() return files["tools.sandbox"](core) end
boot.schema = files["schema.describe"](core)
files.modules(core)
files["pdk.cache"](core)
files["pdk.db"](core)
boot.templates = files.template(core)
boot.record_fields = files.record_fields(core)
boot.answer_printed, boot.tables = core.answer_printed, core.request_tables
boot.ask_before_retry = core.ask_before_retry
boot.about = files.check(core)
return require
