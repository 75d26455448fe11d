local http = require "resty.http"
local base = "http://127.0.0.1:" .. port
local httpc = http.new()
httpc:set_timeouts(2000, 2000, 2000)

local res = assert(httpc:request_uri(base .. "/echo?a=1", {
  method = "POST", body = "hello", headers = { ["X-One"] = { "a", "b" }, ["Content-Type"] = "text/plain" },
}))
assert(res.status == 200 and res.reason == "OK")
assert(res.body:find("POST /echo?a=1 HTTP/1.1\r\n", 1, true) == 1, res.body)
assert(res.body:find("Host: 127.0.0.1:" .. port, 1, true) and res.body:find("X-One: a\r\nX-One: b", 1, true))
assert(res.body:find("Content-Length: 5\r\n", 1, true) and res.body:sub(-5) == "hello")
res = assert(httpc:request_uri(base, { query = { q = "a b&c", n = 5 } }))
assert(res.body:find("q=a%20b%26c", 1, true) and res.body:find("n=5", 1, true) and res.body:find("^GET /%?"))
assert(httpc:request_uri(base .. "/chunked").body == "abcdefg")
assert(httpc:request_uri(base .. "/chunked").headers["x-trailer"] == "t")
assert(httpc:request_uri(base .. "/close").body == "until the end")
assert(httpc:request_uri(base .. "/informed").body == "ok")
res = assert(httpc:request_uri(base .. "/none"))
assert(res.status == 204 and res.body == nil or res.body == "")
assert(res.headers["X-A"][2] == "2" and res.headers.x_a[1] == "1" and res.headers["none"] == nil)

-- By hand, with the connection kept.
assert(httpc:connect { scheme = "http", host = "127.0.0.1", port = port })
res = assert(httpc:request { method = "HEAD", path = "/echo" })
assert(res.status == 200 and not res.has_body and select(2, res:read_body()) == nil)
res = assert(httpc:request { path = "/chunked" })
local pieces = {}
repeat
  local piece, err = res.body_reader(2)
  assert(not err, err)
  pieces[#pieces + 1] = piece
until not piece
assert(table.concat(pieces, ",") == "ab,cd,ef,g", table.concat(pieces, ","))
local left = 3
res = assert(httpc:request { method = "PUT", path = "/echo", headers = { ["Content-Length"] = 6 }, body = function()
  left = left - 1
  return left >= 0 and "xy" or nil
end })
assert(res:read_body():sub(-6) == "xyxyxy")
assert(httpc:set_keepalive(1000, 10) == 1)
assert(httpc:connect { scheme = "http", host = "127.0.0.1", port = port } and httpc:get_reused_times() >= 1)
local all = assert(httpc:request_pipeline { { path = "/one" }, { path = "/two" } })
assert(all[1]:read_body():find("/one", 1, true) and all[2]:read_body():find("/two", 1, true))
httpc:close()

-- What fails says why.
local function fails(expected, value, err)
  assert(value == nil and tostring(err):find(expected, 1, true), tostring(err))
end
fails("couldn't parse HTTP version", httpc:request_uri(base .. "/nonsense"))
fails("closed", httpc:request_uri(base .. "/cut"))
fails("more than 1000 header fields", httpc:request_uri(base .. "/endless"))
fails("bad uri", httpc:request_uri("nonsense"))
fails("invalid value of header", httpc:request_uri(base, { headers = { a = "b\r\nc: d" } }))
fails("invalid header name", httpc:request_uri(base, { headers = { ["a b"] = "c" } }))
fails("invalid method", httpc:request_uri(base, { method = "GET /x HTTP/1.1\r\n" }))
local parsed = httpc:parse_uri("https://user@host.example/a?b=c", false)
assert(parsed[1] == "https" and parsed[2] == "host.example" and parsed[3] == 443 and parsed[4] == "/a" and parsed[5] == "b=c")
local fine, err = pcall(require, "ssl.https")
assert(not fine and err:find("use resty.http", 1, true), err)
